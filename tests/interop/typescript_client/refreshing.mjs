// Tokens expire while streams are followed and appended to.

import { createHmac } from "node:crypto"
import { stream } from "@durable-streams/client"
import { JSON_TYPE, backoffOptions, collect, create, expectEqual, expectError, expectTrue, handleOf, pause, readJson } from "./kit.mjs"

const secret = process.argv[3]

// The lifetime of a token in seconds, and how many messages are appended in which intervals: for several lifetimes.
const LIFETIME = 1.2
const MESSAGES = 30
const INTERVAL_MS = 150

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url")

let made = 0

function token(lifetime = LIFETIME) {
  made += 1
  const claims = { sub: "interop", exp: Date.now() / 1000 + lifetime, jti: String(made) }
  const signed = `${encoded({ alg: "HS256", typ: "JWT", kid: "k" })}.${encoded(claims)}`
  const signature = createHmac("sha256", Buffer.from(secret, "base64url")).update(signed).digest("base64url")
  return `Bearer ${signed}.${signature}`
}

// A fresh token for each request.
const headers = { Authorization: async () => token() }

const aFollowerGoesOnWithFreshTokens = (live) => async (url) => {
  await create(url, JSON_TYPE, { headers })
  const handle = handleOf(url, JSON_TYPE, { headers })
  const before = made
  const items = (batches) => batches.flatMap((batch) => batch.items)
  const response = await stream({ url, live, offset: "-1", headers, backoffOptions })
  const following = collect(response, "subscribeJson", (seen) => items(seen).length >= MESSAGES)
  for (let n = 0; n < MESSAGES; n++) {
    await pause(INTERVAL_MS)
    await handle.append(JSON.stringify({ n }))
  }
  const expected = Array.from({ length: MESSAGES }, (_, n) => ({ n }))
  expectEqual(items(await following), expected, "the messages, in order")
  expectTrue(made > before + MESSAGES, "the follower has not asked again")
}

async function anExpiredTokenIsAnError(url) {
  await create(url, JSON_TYPE, { headers })
  await expectError(() => readJson(url, { headers: { Authorization: token(-1) } }), { status: 401 }, "an expired token")
}

const named = (name, scenario) => Object.defineProperty(scenario, "name", { value: name })

export const scenarios = [
  named("aTailGoesOnWithFreshTokens", aFollowerGoesOnWithFreshTokens("sse")),
  named("longPollsGoOnWithFreshTokens", aFollowerGoesOnWithFreshTokens("long-poll")),
  anExpiredTokenIsAnError,
]
