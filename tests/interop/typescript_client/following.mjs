// Live reading, by long-poll and by SSE.

import { stream } from "@durable-streams/client"
import {
  BINARY,
  EVERY_BYTE,
  IDLE_MS,
  JSON_TYPE,
  PAUSE_MS,
  TEXT,
  backoffOptions,
  collect,
  create,
  expectEqual,
  expectError,
  expectRising,
  expectTrue,
  joined,
  over,
  pause,
  readText,
} from "./kit.mjs"

const PIECES = ["zero\n", "one: ä€🙂\n", "two\n\nwith empty lines\n", "data: three\nevent: control", "\nfour"]
const INDENTED = [" one", "  two\n    three\n", " ", "\n four", "end"]

const follow = (url, live, options = {}) => stream({ url, live, backoffOptions, ...options })

// Append each message after its pause, the third after the server gave up waiting once.
async function writeSlowly(handle, messages) {
  const pauses = [PAUSE_MS, PAUSE_MS, IDLE_MS]
  for (const [index, message] of messages.entries()) {
    await pause(pauses[index] ?? 0)
    await handle.append(message)
  }
}

const textIsFollowed = (live, pieces) => async (url) => {
  const whole = pieces.join("")
  const handle = await create(url, TEXT)
  await handle.append(pieces[0])
  const writing = writeSlowly(handle, pieces.slice(1))
  const text = (batches) => batches.map((batch) => batch.text).join("")
  const isAll = (seen) => text(seen).length >= whole.length
  const batches = await collect(await follow(url, live), "subscribeText", isAll)
  await writing
  expectEqual(text(batches), whole, "the text, in order")
  const offsets = batches.filter((batch) => batch.text).map((batch) => batch.offset)
  expectRising(offsets, "offsets of the batches")
  expectEqual(offsets.at(-1), (await handle.head()).offset, "the last offset")
}

const jsonIsFollowed = (live) => async (url) => {
  const messages = [{ n: 0 }, [1, 2], "three\nlines\r\nhere", { n: 4 }, null]
  const handle = await create(url, JSON_TYPE)
  await handle.append(JSON.stringify(messages[0]))
  const writing = writeSlowly(handle, messages.slice(1).map((message) => JSON.stringify(message)))
  const items = (batches) => batches.flatMap((batch) => batch.items)
  const response = await follow(url, live)
  const batches = await collect(response, "subscribeJson", (seen) => items(seen).length >= messages.length)
  await writing
  expectEqual(items(batches), messages, "the messages, in order")
  expectEqual(batches.at(-1).offset, (await handle.head()).offset, "the last offset")
}

const binaryIsFollowed = (live) => async (url) => {
  const big = joined(Array.from({ length: 40 }, () => EVERY_BYTE))
  const pieces = [EVERY_BYTE, Uint8Array.of(10), Uint8Array.of(0), big]
  const whole = joined(pieces)
  const handle = await create(url, BINARY)
  await handle.append(pieces[0])
  const writing = writeSlowly(handle, pieces.slice(1))
  const bytes = (batches) => joined(batches.map((batch) => batch.data))
  const isAll = (seen) => bytes(seen).length >= whole.length
  const batches = await collect(await follow(url, live), "subscribeBytes", isAll)
  await writing
  expectEqual(bytes(batches), whole, "the bytes, in order")
}

const closingEndsFollowing = (live) => async (url) => {
  const handle = await create(url, JSON_TYPE)
  await handle.append(JSON.stringify({ n: 0 }))
  const response = await follow(url, live)
  const batches = []
  response.subscribeJson((batch) => {
    batches.push(batch)
  })
  await pause(3 * PAUSE_MS)
  await handle.append(JSON.stringify({ n: 1 }))
  await pause(PAUSE_MS)
  const { finalOffset } = await handle.close({ body: JSON.stringify({ n: "last" }) })
  await over(response)
  expectEqual(batches.flatMap((batch) => batch.items), [{ n: 0 }, { n: 1 }, { n: "last" }], "the messages")
  expectEqual([batches.at(-1).streamClosed, batches.at(-1).offset], [true, finalOffset], "the last batch")
  expectEqual([response.streamClosed, response.upToDate], [true, true], "the session at its end")
}

const closingWithoutContentEndsFollowing = (live) => async (url) => {
  const handle = await create(url, TEXT)
  await handle.append("all there is")
  const response = await follow(url, live)
  let text = ""
  response.subscribeText((batch) => {
    text += batch.text
  })
  await pause(3 * PAUSE_MS)
  const closing = Date.now()
  await handle.close()
  await over(response)
  const waited = Date.now() - closing
  expectTrue(waited < 1_500, `followers had to wait ${waited} ms for the end`)
  expectEqual([text, response.streamClosed], ["all there is", true], "the session at its end")
}

const followingResumes = (live) => async (url) => {
  const handle = await create(url, JSON_TYPE)
  for (let n = 0; n < 3; n++) await handle.append(JSON.stringify({ n }))
  const first = await collect(await follow(url, live), "subscribeJson", (seen) => seen.length >= 1)
  expectEqual(first.flatMap((batch) => batch.items), [{ n: 0 }, { n: 1 }, { n: 2 }], "the first session")
  await handle.append(JSON.stringify({ n: 3 }))
  const writing = writeSlowly(handle, [JSON.stringify({ n: 4 })])
  const second = await collect(
    await follow(url, live, { offset: first.at(-1).offset }),
    "subscribeJson",
    (seen) => seen.flatMap((batch) => batch.items).length >= 2,
  )
  await writing
  expectEqual(second.flatMap((batch) => batch.items), [{ n: 3 }, { n: 4 }], "the second session")
}

const followingFromNowSkipsWhatIsThere = (live) => async (url) => {
  const handle = await create(url, TEXT)
  await handle.append("before ")
  const response = await follow(url, live, { offset: "now" })
  const collecting = collect(response, "subscribeText", (seen) => seen.some((batch) => batch.text))
  await pause(2 * PAUSE_MS)
  await handle.append("after")
  expectEqual((await collecting).map((batch) => batch.text).join(""), "after", "the text")
}

const cancellingStopsDelivery = (live) => async (url) => {
  const handle = await create(url, TEXT)
  await handle.append("a")
  const aborter = new AbortController()
  for (const stop of [(response) => response.cancel(), () => aborter.abort()]) {
    const response = await follow(url, live, { signal: aborter.signal })
    let text = ""
    response.subscribeText((batch) => {
      text += batch.text
    })
    await pause(3 * PAUSE_MS)
    stop(response)
    await over(response)
    const seen = text
    await handle.append("b")
    await pause(2 * PAUSE_MS)
    expectEqual(text, seen, "the text after cancelling")
  }
  expectEqual(await readText(url), "abb", "the text of the stream")
}

const deletingEndsFollowing = (live) => async (url) => {
  const handle = await create(url, TEXT)
  await handle.append("soon gone")
  const response = await follow(url, live)
  response.subscribeText(() => {})
  const ended = over(response)
  ended.catch(() => {})
  await pause(3 * PAUSE_MS)
  await handle.delete()
  await expectError(() => ended, { status: 404 }, "the end of the session")
}

async function manyFollowersSeeTheSame(url) {
  const handle = await create(url, JSON_TYPE)
  const items = (batches) => batches.flatMap((batch) => batch.items)
  const modes = Array.from({ length: 24 }, (_, index) => (index % 2 ? "sse" : "long-poll"))
  const following = modes.map(async (live) =>
    items(await collect(await follow(url, live), "subscribeJson", (seen) => items(seen).length >= 20)),
  )
  for (let n = 0; n < 20; n++) {
    await handle.append(JSON.stringify({ n }))
    if (n % 5 === 0) await pause(PAUSE_MS)
  }
  const expected = Array.from({ length: 20 }, (_, n) => ({ n }))
  for (const [index, seen] of (await Promise.all(following)).entries()) {
    expectEqual(seen, expected, `what follower ${index} (${modes[index]}) saw`)
  }
}

async function followingByDefaultWorks(url) {
  await jsonIsFollowed(true)(url)
}

const inBothModes = (name, scenario) =>
  [
    ["ByLongPoll", "long-poll"],
    ["BySse", "sse"],
  ].map(([suffix, live]) => Object.defineProperty(scenario(live), "name", { value: name + suffix }))

export const scenarios = [
  ...inBothModes("textIsFollowed", (live) => textIsFollowed(live, PIECES)),
  ...inBothModes("indentedTextIsFollowed", (live) => textIsFollowed(live, INDENTED)),
  ...inBothModes("jsonIsFollowed", jsonIsFollowed),
  ...inBothModes("binaryIsFollowed", binaryIsFollowed),
  ...inBothModes("closingEndsFollowing", closingEndsFollowing),
  ...inBothModes("closingWithoutContentEndsFollowing", closingWithoutContentEndsFollowing),
  ...inBothModes("followingResumes", followingResumes),
  ...inBothModes("followingFromNowSkipsWhatIsThere", followingFromNowSkipsWhatIsThere),
  ...inBothModes("cancellingStopsDelivery", cancellingStopsDelivery),
  ...inBothModes("deletingEndsFollowing", deletingEndsFollowing),
  manyFollowersSeeTheSame,
  followingByDefaultWorks,
]
