import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["official-suite.test.mjs"],
    // The suite's own time limits stay as they are; these apply where it sets none.
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // One file, one worker: the suite measures waiting times, so nothing may compete with it.
    fileParallelism: false,
  },
})
