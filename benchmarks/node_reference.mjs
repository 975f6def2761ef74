// Starts the reference server of the Durable Streams project in memory, as it comes.
//
//   node node_reference.mjs PORT FOLDER [webhooks]
//
// FOLDER: where npm installed @durable-streams/server. With webhooks, it serves subscriptions.

import { createRequire } from "node:module"
import { join, resolve } from "node:path"
import { pathToFileURL } from "node:url"

const [port, folder, webhooks] = process.argv.slice(2)
const installed = createRequire(join(resolve(folder), "package.json"))
const main = installed.resolve("@durable-streams/server").replace(/\.cjs$/, ".js")
const { DurableStreamTestServer } = await import(pathToFileURL(main).href)

const server = new DurableStreamTestServer({ host: "127.0.0.1", port: Number(port), webhooks: webhooks === "webhooks" })
await server.start()

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => process.exit(0))
}
