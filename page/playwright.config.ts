// Two kinds of tests: `unit` (pure functions, no browser) and `browser` (Debian's chromium against
// the real program). What the machine lacks is said loudly.
import { defineConfig, type PlaywrightTestConfig } from "@playwright/test";
import { CHROMIUM, missing } from "./e2e/world";

const lacks = missing();
if (lacks.length > 0) {
  console.error(`\n*** The page is NOT tested in a browser: this machine lacks ${lacks.join("; ")}.\n`);
}

/** How the browser is started, also for the measurement. */
export const browser: PlaywrightTestConfig["use"] = {
  viewport: { width: 1360, height: 860 },
  colorScheme: "light",
  launchOptions: { executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage"] },
  trace: "retain-on-failure",
  screenshot: "only-on-failure",
};

export default defineConfig({
  // One server and one browser at a time: these tests share two cores with others.
  workers: 1,
  fullyParallel: false,
  forbidOnly: true,
  retries: 0,
  timeout: 180_000,
  expect: { timeout: 30_000 },
  reporter: [["list"]],
  outputDir: "test-results",
  projects: [
    { name: "unit", testDir: "unit", testMatch: "*.test.ts" },
    ...(lacks.length > 0 ? [] : [{ name: "browser", testDir: "e2e", testMatch: "*.test.ts", use: browser }]),
  ],
});
