// Run every scenario against the server at the URL given; one JSON line for each.  If a control and the name of a set
// follow, run that set instead: "restored", whose control is the URL of the server that replaces it by a restored one,
// or "guarded", whose control is the secret that signs tokens.

import { randomUUID } from "node:crypto"
import { soon } from "./kit.mjs"
import { scenarios as following } from "./following.mjs"
import { scenarios as producing } from "./producing.mjs"
import { scenarios as refreshing } from "./refreshing.mjs"
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
const sets = { restored: restoring, guarded: refreshing }
const chosen = process.argv[4] ? sets[process.argv[4]] : [...writing, ...reading, ...following, ...producing]
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
