// What the scenarios share: assertions that say what came instead, bounded waiting, and fresh streams.

import { isDeepStrictEqual } from "node:util"
import { DurableStream, stream } from "@durable-streams/client"

export const TEXT = "text/plain"
export const JSON_TYPE = "application/json"
export const BINARY = "application/octet-stream"

// Longer than the server holds an idle long-poll, so that followers have to ask again.
export const IDLE_MS = 3_000
export const PAUSE_MS = 150
const WAIT_MS = 10_000
const SHOWN = 300

export const EVERY_BYTE = Uint8Array.from({ length: 256 }, (_, value) => value)

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))

function shown(value) {
  const text = value instanceof Uint8Array ? `${value.length} bytes` : (JSON.stringify(value) ?? String(value))
  return text.length <= SHOWN ? text : `${text.slice(0, SHOWN)}... (${text.length} characters)`
}

export function expectEqual(actual, expected, what) {
  if (!isDeepStrictEqual(actual, expected)) {
    throw new Error(`${what}: expected ${shown(expected)}, got ${shown(actual)}`)
  }
}

export function expectTrue(condition, what) {
  if (!condition) throw new Error(what)
}

export async function expectError(work, properties, what) {
  let result
  try {
    result = await work()
  } catch (error) {
    for (const [name, expected] of Object.entries(properties)) {
      expectEqual(error[name], expected, `${what}: ${name} of "${error.message}"`)
    }
    return error
  }
  throw new Error(`${what}: expected an error, got the result ${shown(result)}`)
}

export function expectRising(offsets, what) {
  const rising = offsets.every((offset, index) => index === 0 || offsets[index - 1] < offset)
  expectTrue(rising, `${what}: ${shown(offsets)}`)
}

// The promise's result, or an error after a bounded time.
export async function soon(promise, what, milliseconds = WAIT_MS) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing for ${milliseconds} ms`)), milliseconds)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

// The client retries network failures and server errors for ever by default; here they have to show.
export const backoffOptions = { initialDelay: 20, maxDelay: 100, multiplier: 1.3, maxRetries: 3 }

export const create = (url, contentType, options = {}) =>
  DurableStream.create({ url, contentType, backoffOptions, ...options })

export const handleOf = (url, contentType, options = {}) =>
  new DurableStream({ url, contentType, backoffOptions, ...options })

export const read = (url, options = {}) => stream({ url, live: false, backoffOptions, ...options })

export const readText = async (url, options) => (await read(url, options)).text()
export const readJson = async (url, options) => (await read(url, options)).json()
export const readBytes = async (url, options) => (await read(url, options)).body()

export async function appendAll(handle, ...messages) {
  for (const message of messages) await handle.append(message)
}

export function joined(chunks) {
  return new Uint8Array(Buffer.concat(chunks))
}

// The client tells that a session is over just before it delivers the last batch.
export const over = (response) => soon(response.closed, "the end of the session").then(() => pause(PAUSE_MS))

// Collect what a subscription delivers until it is enough, or until a bounded time is over: what is missing
// then shows in the comparison that follows.
export async function collect(response, method, enough) {
  const batches = []
  await new Promise((resolve) => {
    const timer = setTimeout(resolve, WAIT_MS)
    const done = () => {
      clearTimeout(timer)
      resolve()
    }
    over(response).then(done, done)
    response[method]((batch) => {
      batches.push(batch)
      if (enough(batches)) done()
    })
  })
  response.cancel()
  return batches
}
