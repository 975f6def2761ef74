// Shows the answer in a stream while it is written, and goes on where it was after a reload.

import { FetchError, stream } from "@durable-streams/client"

const url = "http://localhost:4437/v1/stream/answers/1"

const answer = document.querySelector("#answer")!
const state = document.querySelector("#state")!

// The text so far and the offset after it. They are saved together, so that neither a token is missing nor one is twice.
let saved: { text: string; offset: string } = JSON.parse(localStorage.getItem(url) ?? '{"text": "", "offset": "-1"}')
answer.textContent = saved.text

// stream() calls this if the first request is refused; a result, even an empty one, repeats the request.
async function onError(error: Error) {
  const status = error instanceof FetchError ? error.status : undefined
  if (status === 404) {
    state.textContent = "waiting for the answer"
    await new Promise((resolve) => setTimeout(resolve, 1000))
    return {}
  }
  if (status === 410 || status === 400) {
    // The stream was deleted and created again, or moved to another server: what is saved belongs to the earlier one.
    localStorage.removeItem(url)
    location.reload()
  }
}

async function follow() {
  const response = await stream<{ token: string }>({ url, offset: saved.offset, live: true, onError })
  state.textContent = "writing"
  response.subscribeJson((batch) => {
    saved = { text: saved.text + batch.items.map((item) => item.token).join(""), offset: batch.offset }
    localStorage.setItem(url, JSON.stringify(saved))
    answer.textContent = saved.text
  })
  // Resolves when the stream is closed and all of it was read. Until then the client reconnects by itself.
  await response.closed
}

try {
  await follow()
  state.textContent = "complete"
} catch (error) {
  state.textContent = String(error)
}
