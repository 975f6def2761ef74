// Receives webhooks and works off the streams that they name: node receiver.mjs
//
//   DS_URL   the streams of the server, whose keys sign the webhooks
//   PORT     where to listen on 127.0.0.1

import { createPublicKey, verify } from "node:crypto"
import { createServer } from "node:http"

const url = process.env.DS_URL ?? "http://localhost:4437/v1/stream"
const port = Number(process.env.PORT ?? 8080)

// The public keys of the server, at most 5 minutes old. Never take the address of the keys from a request.
let keys = new Map()
let keysUntil = 0

async function publicKey(kid) {
  if (Date.now() > keysUntil || !keys.has(kid)) {
    if (Date.now() < keysUntil - 290_000) return undefined // fetched in the last 10 seconds
    const response = await fetch(`${url}/__ds/jwks.json`)
    const set = await response.json()
    keys = new Map(set.keys.map((jwk) => [jwk.kid, createPublicKey({ key: jwk, format: "jwk" })]))
    keysUntil = Date.now() + 300_000
  }
  return keys.get(kid)
}

// Tell whether the server has signed this body in the last 5 minutes. The body must be the bytes as they came.
async function isAuthentic(header, body) {
  const match = /^t=(\d+),kid=([^,]+),ed25519=([A-Za-z0-9_-]+)$/.exec(header ?? "")
  if (!match) return false
  const [, time, kid, signature] = match
  if (Math.abs(Date.now() / 1000 - Number(time)) > 300) return false
  const key = await publicKey(kid)
  if (!key) return false
  const signed = Buffer.concat([Buffer.from(`${time}.`), body])
  return verify(null, signed, key, Buffer.from(signature, "base64url"))
}

// Do something with a message. Put your program in the place of this.
async function work(path, message) {
  console.log(`${path} ${JSON.stringify(message)}`)
}

async function workOff(wake) {
  const acks = []
  for (const { path, acked_offset, has_pending } of wake.streams) {
    if (!has_pending) continue
    const name = path.split("/").map(encodeURIComponent).join("/")
    const response = await fetch(`${url}/${name}?offset=${acked_offset}`)
    for (const message of await response.json()) await work(path, message)
    acks.push({ stream: path, offset: response.headers.get("stream-next-offset") })
  }
  const { wake_id, generation } = wake
  const response = await fetch(wake.callback_url, {
    method: "POST",
    headers: { authorization: `Bearer ${wake.callback_token}`, "content-type": "application/json" },
    body: JSON.stringify({ wake_id, generation, acks, done: true }),
  })
  if (!response.ok) console.error(`The ack was refused: ${await response.text()}`)
}

// The server repeats a webhook with the same wake_id if it has not seen the answer.
const running = new Set()

const server = createServer(async (request, response) => {
  const parts = []
  for await (const part of request) parts.push(part)
  const body = Buffer.concat(parts)
  if (!(await isAuthentic(request.headers["webhook-signature"], body))) {
    response.writeHead(401).end()
    return
  }
  // Answer at once, work afterwards: a webhook is repeated unless it is answered within 5 seconds.
  response.writeHead(200, { "content-type": "application/json" }).end("{}")
  const wake = JSON.parse(body)
  if (running.has(wake.wake_id)) return
  running.add(wake.wake_id)
  try {
    await workOff(wake)
  } catch (error) {
    console.error(`The work was not finished, and comes again when its lease is over: ${error}`)
  } finally {
    running.delete(wake.wake_id)
  }
})

server.listen(port, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${port}/`))
