// Catching up: what is there now, from the start or from an offset.

import {
  BINARY,
  JSON_TYPE,
  TEXT,
  appendAll,
  create,
  expectEqual,
  expectError,
  expectTrue,
  read,
  readBytes,
  readJson,
  readText,
} from "./kit.mjs"

async function catchingUpTakesExactlyOneAnswer(url) {
  const handle = await create(url, JSON_TYPE)
  const messages = Array.from({ length: 100 }, (_, number) => ({ number, padding: "x".repeat(60) }))
  await appendAll(handle, ...messages.map((message) => JSON.stringify(message)))
  const requests = []
  const counting = (target, options) => {
    requests.push(new URL(target))
    return fetch(target, options)
  }
  const response = await read(url, { fetch: counting })
  expectEqual(await response.json(), messages, "the messages")
  expectEqual([response.status, response.upToDate, response.streamClosed], [200, true, false], "the response")
  expectEqual(response.offset, (await handle.head()).offset, "the offset after reading")
  expectEqual(requests.length, 1, "the number of requests")
  expectTrue(!requests[0].searchParams.has("live"), `a plain read, not ${requests[0]}`)
}

async function readingAnEmptyStreamEndsAtOnce(url) {
  await create(url, BINARY)
  expectEqual((await readBytes(url)).length, 0, "the number of bytes")
  await create(`${url}-json`, JSON_TYPE)
  expectEqual(await readJson(`${url}-json`), [], "the messages")
}

async function readingResumesFromEveryOffset(url) {
  const pieces = ["alpha ", "beta ", "gamma ", "delta"]
  const handle = await create(url, TEXT)
  const offsets = ["-1"]
  for (const piece of pieces) {
    await handle.append(piece)
    offsets.push((await handle.head()).offset)
  }
  for (const [index, offset] of offsets.entries()) {
    expectEqual(await readText(url, { offset }), pieces.slice(index).join(""), `the text after ${offset}`)
  }
  expectEqual(await readText(url, { offset: "now" }), "", "the text from now on")
}

async function readersOfAClosedStreamSeeItsEnd(url) {
  const handle = await create(url, JSON_TYPE)
  await handle.append(JSON.stringify({ n: 0 }))
  await handle.close()
  for (const live of [false, true, "long-poll", "sse"]) {
    const response = await read(url, { live })
    const items = []
    for await (const item of response.jsonStream()) items.push(item)
    expectEqual(items, [{ n: 0 }], `the messages with live ${live}`)
    expectEqual(response.streamClosed, true, `whether the end was seen with live ${live}`)
  }
}

async function malformedOffsetsAreRefused(url) {
  await create(url, TEXT)
  await expectError(() => readText(url, { offset: "not an offset, surely" }), { status: 400 }, "the read")
}

export const scenarios = [
  catchingUpTakesExactlyOneAnswer,
  readingAnEmptyStreamEndsAtOnce,
  readingResumesFromEveryOffset,
  readersOfAClosedStreamSeeItsEnd,
  malformedOffsetsAreRefused,
]
