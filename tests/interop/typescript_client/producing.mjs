// Idempotent producers: pipelining, duplicates, lost answers, epochs, closing.

import { IdempotentProducer } from "@durable-streams/client"
import { JSON_TYPE, TEXT, create, expectEqual, expectError, expectTrue, handleOf, readJson, readText } from "./kit.mjs"

const numbered = (count) => Array.from({ length: count }, (_, n) => ({ n }))

function producerOf(url, contentType, { id = "interop", ...options } = {}) {
  const errors = []
  const producer = new IdempotentProducer(handleOf(url, contentType), id, {
    onError: (error) => errors.push(error),
    ...options,
  })
  return { producer, errors }
}

async function pipelinedBatchesKeepTheirOrder(url) {
  await create(url, JSON_TYPE)
  const { producer, errors } = producerOf(url, JSON_TYPE, { maxBatchBytes: 30, lingerMs: 0, maxInFlight: 5 })
  for (const message of numbered(200)) producer.append(JSON.stringify(message))
  await producer.flush()
  expectEqual(errors.map(String), [], "the errors reported")
  expectEqual(await readJson(url), numbered(200), "the messages")
  expectEqual(producer.lastSuccessfulOffset, (await handleOf(url).head()).offset, "the last offset the producer knows")
  await producer.detach()
}

async function repeatedBatchesCountOnce(url) {
  await create(url, JSON_TYPE)
  const statuses = []
  const twice = async (target, options) => {
    statuses.push((await fetch(target, options)).status)
    const repeated = await fetch(target, options)
    statuses.push(repeated.status)
    return repeated
  }
  const { producer, errors } = producerOf(url, JSON_TYPE, { fetch: twice, maxInFlight: 1 })
  for (const message of numbered(5)) {
    producer.append(JSON.stringify(message))
    await producer.flush()
  }
  expectEqual(errors.map(String), [], "the errors reported")
  expectEqual(statuses, Array.from({ length: 5 }, () => [200, 204]).flat(), "the statuses")
  expectEqual(await readJson(url), numbered(5), "the messages")
}

// A producer that crashed after its answer was lost starts again with the same numbers.
async function restartsAfterLostAnswersCountOnce(url) {
  await create(url, TEXT)
  const losing = async (target, options) => {
    await fetch(target, options)
    throw new TypeError("the answer was lost on its way")
  }
  const { producer: crashed, errors } = producerOf(url, TEXT, { fetch: losing })
  crashed.append("once")
  await crashed.flush().catch(() => {})
  expectEqual(errors.length, 1, "the number of errors reported")
  const { producer: restarted } = producerOf(url, TEXT)
  restarted.append("once")
  await restarted.flush()
  restarted.append(" and more")
  await restarted.flush()
  expectEqual(await readText(url), "once and more", "the text")
}

async function overtakingBatchesAreSentAgain(url) {
  await create(url, TEXT)
  let requests = 0
  const firstIsSlow = async (target, options) => {
    if (requests++ === 0) await new Promise((resolve) => setTimeout(resolve, 200))
    return fetch(target, options)
  }
  const { producer, errors } = producerOf(url, TEXT, { fetch: firstIsSlow, maxBatchBytes: 1, maxInFlight: 4 })
  for (const letter of "abcd") producer.append(letter)
  await producer.flush()
  expectEqual(errors.map(String), [], "the errors reported")
  expectTrue(requests > 4, `${requests} requests: nothing was refused for coming too early`)
  expectEqual(await readText(url), "abcd", "the text")
}

async function claimingAnEpochFencesTheOneBefore(url) {
  await create(url, TEXT)
  const { producer: old, errors } = producerOf(url, TEXT, { epoch: 3 })
  old.append("old ")
  await old.flush()
  const { producer: claimer } = producerOf(url, TEXT, { autoClaim: true })
  claimer.append("claimed ")
  await claimer.flush()
  expectEqual(claimer.epoch, 4, "the epoch claimed")
  old.append("never")
  await old.flush().catch(() => {})
  expectEqual(errors.map((error) => [error.name, error.currentEpoch]), [["StaleEpochError", 4]], "the errors")
  claimer.append("again ")
  await claimer.flush()
  await claimer.restart()
  claimer.append("restarted")
  await claimer.flush()
  expectEqual(await readText(url), "old claimed again restarted", "the text")
}

async function producersCloseOnce(url) {
  await create(url, JSON_TYPE)
  const { producer } = producerOf(url, JSON_TYPE)
  producer.append(JSON.stringify({ n: 0 }))
  const { finalOffset } = await producer.close(JSON.stringify({ n: 1 }))
  const other = producerOf(url, JSON_TYPE, { id: "other" }).producer
  await expectError(() => other.close(JSON.stringify({ n: 1 })), { status: 409 }, "closing by another producer")
  const head = await handleOf(url).head()
  expectEqual([head.streamClosed, head.offset], [true, finalOffset], "the head")
  expectEqual(await readJson(url), numbered(2), "the messages")
}

async function repeatedClosingCountsOnce(url) {
  await create(url, TEXT)
  const offsets = []
  for (let attempt = 0; attempt < 2; attempt++) {
    offsets.push((await producerOf(url, TEXT).producer.close("all at once")).finalOffset)
  }
  expectEqual(offsets[1], offsets[0], "the final offset of the repeated closing")
  expectEqual(await readText(url), "all at once", "the text")
}

async function writableStreamsDeliverAndClose(url) {
  const handle = await create(url, TEXT)
  const pieces = Array.from({ length: 30 }, (_, n) => `line ${n}\n`)
  const source = new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece)
      controller.close()
    },
  })
  await source.pipeTo(handle.writable())
  expectEqual(await readText(url), pieces.join(""), "the text")
  expectEqual((await handle.head()).streamClosed, true, "whether the stream is closed")
}

export const scenarios = [
  pipelinedBatchesKeepTheirOrder,
  repeatedBatchesCountOnce,
  restartsAfterLostAnswersCountOnce,
  overtakingBatchesAreSentAgain,
  claimingAnEpochFencesTheOneBefore,
  producersCloseOnce,
  repeatedClosingCountsOnce,
  writableStreamsDeliverAndClose,
]
