// Creating, appending, closing, inspecting, deleting.

import { DurableStream } from "@durable-streams/client"
import {
  BINARY,
  EVERY_BYTE,
  JSON_TYPE,
  TEXT,
  appendAll,
  create,
  expectEqual,
  expectError,
  expectRising,
  handleOf,
  joined,
  readBytes,
  readJson,
  readText,
} from "./kit.mjs"

async function textIsCreatedAppendedAndInspected(url) {
  const handle = await create(url, TEXT)
  const offsets = [(await handle.head()).offset]
  for (const piece of ["first ", "zweitens: äöü € 🙂 ", new TextEncoder().encode("third")]) {
    await handle.append(piece)
    offsets.push((await handle.head()).offset)
  }
  expectRising(offsets, "offsets after each append")
  expectEqual(await readText(url), "first zweitens: äöü € 🙂 third", "the text")
  const head = await DurableStream.head({ url })
  expectEqual([head.exists, head.streamClosed, head.contentType.split(";")[0]], [true, false, TEXT], "the head")
  const connected = await DurableStream.connect({ url })
  expectEqual(connected.contentType.split(";")[0], TEXT, "the content type of a connected handle")
}

async function binarySurvivesUnchanged(url) {
  const handle = await create(url, BINARY)
  const big = joined(Array.from({ length: 400 }, () => EVERY_BYTE))
  await appendAll(handle, EVERY_BYTE, Uint8Array.of(13, 10, 0, 255), big)
  expectEqual(await readBytes(url), joined([EVERY_BYTE, Uint8Array.of(13, 10, 0, 255), big]), "the bytes")
}

async function jsonMessagesKeepTheirValues(url) {
  const messages = [{ a: 1, ü: "€" }, [1, [2, []]], "text", 12.5, null, true, {}, [], 2 ** 53 - 1]
  const handle = await create(url, JSON_TYPE)
  await appendAll(handle, ...messages.map((message) => JSON.stringify(message)))
  expectEqual(await readJson(url), messages, "the messages")
}

async function initialContentIsPartOfTheStream(url) {
  const handle = await create(url, JSON_TYPE, { body: [{ n: 0 }, { n: 1 }] })
  await handle.append(JSON.stringify({ n: 2 }))
  expectEqual(await readJson(url), [{ n: 0 }, { n: 1 }, { n: 2 }], "the messages")
}

async function overlappingAppendsAreBatchedInOrder(url) {
  const handle = await create(url, JSON_TYPE)
  await Promise.all(Array.from({ length: 50 }, (_, n) => handle.append(JSON.stringify({ n }))))
  expectEqual(await readJson(url), Array.from({ length: 50 }, (_, n) => ({ n })), "the messages")
}

async function streamedBodiesArriveWhole(url) {
  async function* pieces() {
    for (let n = 0; n < 20; n++) yield `piece ${n}\n`
  }
  const handle = await create(url, TEXT)
  await handle.appendStream(pieces())
  expectEqual(await readText(url), Array.from({ length: 20 }, (_, n) => `piece ${n}\n`).join(""), "the text")
}

async function creatingAgainNeedsTheSameConfiguration(url) {
  await (await create(url, TEXT)).append("kept")
  await create(url, TEXT)
  await expectError(() => create(url, JSON_TYPE), { status: 409 }, "another content type")
  expectEqual(await readText(url), "kept", "the text")
}

async function missingStreamsAreNotFound(url) {
  const handle = handleOf(url, TEXT)
  expectEqual(await handle.head(), { exists: false }, "head")
  await expectError(() => handle.append("x"), { status: 404 }, "append")
  await expectError(() => handle.delete(), { status: 404 }, "delete")
  await expectError(() => readText(url), { status: 404 }, "read")
}

async function sequenceNumbersMustRise(url) {
  const handle = await create(url, TEXT)
  await handle.append("a", { seq: "0001" })
  await handle.append("b", { seq: "0002" })
  for (const seq of ["0002", "0001"]) {
    await expectError(() => handle.append("never", { seq }), { status: 409 }, `seq ${seq}`)
  }
  await handle.append("c", { seq: "0003" })
  expectEqual(await readText(url), "abc", "the text")
}

// The client recognises a closed stream by a header of the 409, which only a request of its own shows.
async function closingKeepsTheContentAndRefusesMore(url) {
  const handle = await create(url, TEXT)
  await handle.append("body, ")
  const { finalOffset } = await handle.close({ body: "end" })
  const refused = await expectError(() => handle.append("late"), { status: 409 }, "append after closing")
  expectEqual(refused.headers["stream-closed"], "true", "the Stream-Closed header of the refusal")
  expectEqual(refused.headers["stream-next-offset"], finalOffset, "the offset the refusal tells")
  await expectError(() => handle.close({ body: "again" }), { status: 409 }, "closing with content again")
  const head = await handle.head()
  expectEqual([head.streamClosed, head.offset], [true, finalOffset], "the head")
  expectEqual(await readText(url), "body, end", "the text")
}

async function closingWithoutContentCanBeRepeated(url) {
  const handle = await create(url, JSON_TYPE)
  await handle.append(JSON.stringify("all there is"))
  const { offset } = await handle.head()
  for (const attempt of ["first", "second"]) {
    expectEqual(await handle.close(), { finalOffset: offset }, `the ${attempt} closing`)
  }
  expectEqual(await readJson(url), ["all there is"], "the messages")
}

async function streamsCanBeCreatedClosed(url) {
  const handle = await create(url, TEXT, { closed: true, body: "complete" })
  expectEqual((await handle.head()).streamClosed, true, "whether it is closed")
  expectEqual(await readText(url), "complete", "the text")
}

async function deletedStreamsAreGoneAndCanBeMadeAnew(url) {
  const handle = await create(url, TEXT)
  await handle.append("old")
  await handle.delete()
  expectEqual(await handle.head(), { exists: false }, "head")
  await expectError(() => readText(url), { status: 404 }, "read")
  await expectError(() => handle.delete(), { status: 404 }, "deleting twice")
  await (await create(url, JSON_TYPE)).append(JSON.stringify({ new: true }))
  expectEqual(await readJson(url), [{ new: true }], "the messages of the new stream")
}

export const scenarios = [
  textIsCreatedAppendedAndInspected,
  binarySurvivesUnchanged,
  jsonMessagesKeepTheirValues,
  initialContentIsPartOfTheStream,
  overlappingAppendsAreBatchedInOrder,
  streamedBodiesArriveWhole,
  creatingAgainNeedsTheSameConfiguration,
  missingStreamsAreNotFound,
  sequenceNumbersMustRise,
  closingKeepsTheContentAndRefusesMore,
  closingWithoutContentCanBeRepeated,
  streamsCanBeCreatedClosed,
  deletedStreamsAreGoneAndCanBeMadeAnew,
]
