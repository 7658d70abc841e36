// How long a line takes from the process's write to the text in a browser's picture (target P6).
//
// The process and the browser share this machine's clock. The process writes the time into each
// line; the page's own observer takes the time of the frame in which the line is first there. Once
// alone, once beside steps that print as well. What is printed is the whole way: pipe, shim, agent,
// server, stream of events, page, frame. Not here: many servers, 2,000 steps.

import { expect, test } from "@playwright/test";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { logIn } from "../e2e/setup";
import { pipeline, World, type Keys } from "../e2e/world";

/** Lines of a round, and the pause between two of them. */
const [LINES, PAUSE_US] = [1_000, 20_000];

/** The first lines meet a page that is still opening. */
const LEFT_OUT = 50;

/** Lines a second of each neighbour. */
const NEIGHBOURS = [0, Number(process.env.NEIGHBOURS ?? 16)];

test("log delay", async ({ page }) => {
  const folder = mkdtempSync(join(tmpdir(), "buildflow-stamp-"));
  const program = join(folder, "stamp");
  execFileSync("cc", ["-O2", "-static", "-o", program, new URL("stamp.c", import.meta.url).pathname]);
  const world = await World.start({ stamp: program });
  try {
    await logIn(page, world);
    for (const neighbours of NEIGHBOURS) {
      const steps: Record<string, Keys> = { measured: { run: `stamp ${LINES} ${PAUSE_US}` } };
      for (let i = 0; i < neighbours; i++) steps[`neighbour-${i}`] = { run: `stamp ${LINES * 20} 10000` };
      const made = await world.run("delay", pipeline({ only: steps }));
      await page.goto(`${made.web_url}/steps/measured`);
      const delays = await page.evaluate(observe, LINES - LEFT_OUT);
      expect(await world.api("POST", `/runs/${made.run_id}/cancel`)).toBeTruthy();
      await world.over(made.run_id);
      const sorted = delays.slice(LEFT_OUT).sort((a, b) => a - b);
      const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))]!.toFixed(1);
      console.log(
        `log delay, write to browser, ${neighbours} neighbours: ${sorted.length} lines, ` +
          `p50 ${at(0.5)} ms, p90 ${at(0.9)} ms, p99 ${at(0.99)} ms, most ${at(1)} ms`,
      );
      expect(sorted[0]!, "both sides have one clock").toBeGreaterThan(0);
    }
  } finally {
    await world.end();
    rmSync(folder, { recursive: true, force: true });
  }
});

/** The delays of so many lines, in the order in which they were drawn. */
function observe(count: number): Promise<number[]> {
  return new Promise((then) => {
    const seen = new Set<string>();
    const delays: number[] = [];
    const look = () => {
      const drawn = performance.timeOrigin + performance.now();
      for (const line of document.querySelectorAll(".line .tx")) {
        const text = line.textContent!;
        if (!text.startsWith("stamp ") || seen.has(text)) continue;
        seen.add(text);
        delays.push(drawn - Number(text.slice(6)) * 1000);
      }
      if (delays.length >= count) then(delays);
      else requestAnimationFrame(look);
    };
    // Within a frame, before it is drawn: the page's own work on it comes before or in the next one.
    requestAnimationFrame(look);
  });
}
