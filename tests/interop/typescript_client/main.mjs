// Run every scenario against the server at the URL given; one JSON line for each.  If the URL of a control server
// follows, run those in which the server is replaced by a restored one instead.

import { randomUUID } from "node:crypto"
import { soon } from "./kit.mjs"
import { scenarios as following } from "./following.mjs"
import { scenarios as producing } from "./producing.mjs"
import { scenarios as reading } from "./reading.mjs"
import { scenarios as restoring } from "./restoring.mjs"
import { scenarios as writing } from "./writing.mjs"

const SCENARIO_MS = 25_000

// What a scenario that failed leaves behind must not end the scenarios after it.
process.on("unhandledRejection", () => {})

function tell(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

const baseUrl = process.argv[2].replace(/\/$/, "")
const chosen = process.argv[3] ? restoring : [...writing, ...reading, ...following, ...producing]
for (const scenario of chosen) {
  const url = `${baseUrl}/v1/stream/interop/${scenario.name}-${randomUUID()}`
  const began = Date.now()
  let why = null
  try {
    await soon(scenario(url), "the scenario", SCENARIO_MS)
  } catch (error) {
    why = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  }
  tell({ scenario: scenario.name, why, seconds: (Date.now() - began) / 1000 })
}
tell({ finished: true })
process.exit(0)
