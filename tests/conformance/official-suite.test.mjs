// The official suite, unchanged, against the server at CONFORMANCE_BASE_URL.

import { runConformanceTests } from "@durable-streams/server-conformance-tests"

const baseUrl = process.env.CONFORMANCE_BASE_URL
const longPollTimeoutMs = Number(process.env.CONFORMANCE_LONG_POLL_MS)

if (!baseUrl || !(longPollTimeoutMs > 0)) {
  throw new Error("CONFORMANCE_BASE_URL and CONFORMANCE_LONG_POLL_MS must be set")
}

runConformanceTests({ baseUrl, longPollTimeoutMs, subscriptions: true })
