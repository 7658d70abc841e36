// The measurement of the log's delay: `scripts/page delay`.
import { defineConfig } from "@playwright/test";
import { missing } from "../e2e/world";
import { browser } from "../playwright.config";

if (missing().length > 0) throw new Error(`this machine lacks ${missing().join("; ")}`);

export default defineConfig({
  workers: 1,
  timeout: 600_000,
  reporter: [["list"]],
  outputDir: "../test-results",
  projects: [{ name: "delay", testDir: ".", testMatch: "delay.ts", use: { ...browser, trace: "off", screenshot: "off" } }],
});
