// The server is backed up and replaced by a fresh one, into which the archive is restored.

import { IdempotentProducer, stream } from "@durable-streams/client"
import { JSON_TYPE, TEXT, backoffOptions, collect, create, expectEqual, handleOf, pause, readJson, readText } from "./kit.mjs"

const control = process.argv[3]

async function replaceTheServer() {
  const answer = await fetch(control, { method: "POST" })
  expectEqual(answer.status, 200, "the status of the replacement")
}

async function readersGoOnAtOldOffsetsAfterARestore(url) {
  const handle = await create(url, TEXT)
  const offsets = []
  for (const text of ["one ", "two ", "three "]) {
    await handle.append(text)
    offsets.push((await handle.head()).offset)
  }
  await replaceTheServer()
  expectEqual(await readText(url, { offset: offsets[0] }), "two three ", "the text after the first offset")
  expectEqual(await readText(url, { offset: offsets[2] }), "", "the text after the last offset")
  await handle.append("four")
  expectEqual(await readText(url, { offset: offsets[1] }), "three four", "the text after the second offset")
}

async function producersGoOnAtOldEpochsAfterARestore(url) {
  await create(url, JSON_TYPE)
  const errors = []
  const options = { epoch: 4, lingerMs: 0, maxInFlight: 1, onError: (error) => errors.push(error) }
  const producer = new IdempotentProducer(handleOf(url, JSON_TYPE), "interop", options)
  for (let n = 0; n < 10; n++) {
    producer.append(JSON.stringify({ n }))
    await producer.flush()
    if (n === 4) await replaceTheServer()
  }
  await producer.detach()
  expectEqual(errors.map(String), [], "the errors reported")
  // One that lost its answers sends the same numbers again.
  const repeated = new IdempotentProducer(handleOf(url, JSON_TYPE), "interop", options)
  for (let n = 0; n < 10; n++) {
    repeated.append(JSON.stringify({ n }))
    await repeated.flush()
    if (n === 4) await replaceTheServer()
  }
  repeated.append(JSON.stringify({ n: 10 }))
  await repeated.flush()
  expectEqual(errors.map(String), [], "the errors reported")
  const expected = Array.from({ length: 11 }, (_, n) => ({ n }))
  expectEqual(await readJson(url), expected, "the messages")
}

const followersGoOnAfterARestore = (live) => async (url) => {
  const handle = await create(url, JSON_TYPE)
  for (let n = 0; n < 2; n++) await handle.append(JSON.stringify({ n }))
  const { offset } = await handle.head()
  await replaceTheServer()
  const items = (batches) => batches.flatMap((batch) => batch.items)
  const following = collect(await stream({ url, live, offset, backoffOptions }), "subscribeJson", (seen) => items(seen).length >= 2)
  await pause(200)
  for (let n = 2; n < 4; n++) await handle.append(JSON.stringify({ n }))
  expectEqual(items(await following), [{ n: 2 }, { n: 3 }], "the messages that follow")
}

const named = (name, scenario) => Object.defineProperty(scenario, "name", { value: name })

export const scenarios = [
  readersGoOnAtOldOffsetsAfterARestore,
  producersGoOnAtOldEpochsAfterARestore,
  named("sseFollowersGoOnAfterARestore", followersGoOnAfterARestore("sse")),
  named("longPollFollowersGoOnAfterARestore", followersGoOnAfterARestore("long-poll")),
]
