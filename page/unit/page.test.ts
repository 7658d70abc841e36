import { expect, test } from "@playwright/test";
import { layout, type Step } from "../src/graph/layout";
import { ticks } from "../src/graph/scale";
import { ago, bytes, cores, duration } from "../src/parts/time";
import { hashOf, linesOf, pipelinePath, routeOf, runsPath, safeNext, stepPath } from "../src/route";

const at = (path: string) => routeOf(new URL(path, "http://x"));

test("route: every view has an address, and every address a view", () => {
  expect(at("/")).toEqual({ view: "runs", filters: {} });
  expect(at("/runs?status=failed&branch=a%2Fb&other=1")).toEqual({ view: "runs", filters: { status: "failed", branch: "a/b" } });
  expect(at("/runs/01jd/")).toEqual({ view: "run", run: "01jd" });
  expect(at("/runs/01jd/steps/unit?attempt=2&q=a+b#L3-L9")).toEqual({ view: "step", run: "01jd", step: "unit", attempt: 2, q: "a b", lines: { from: 3, to: 9 } });
  expect(at("/pipelines/t/p")).toMatchObject({ view: "pipeline", team: "t", pipeline: "p" });
  expect(at("/nodes/n1")).toEqual({ view: "node", node: "n1" });
  for (const lost of ["/x", "/runs/a/steps", "/runs/a/b/c", "/pipelines/t", "/runs/%E0%A4%A", "/nodes/a/b"]) expect(at(lost).view, lost).toBe("lost");
});

test("route: paths lead back to what they were made of", () => {
  for (const step of ["unit", "unit(1.94)", "a b/c?d#e%", "ü"]) {
    const path = stepPath("01jd", step, { attempt: 3, q: "x&y=#", lines: { from: 5, to: 5 } });
    expect(at(path)).toEqual({ view: "step", run: "01jd", step, attempt: 3, q: "x&y=#", lines: { from: 5, to: 5 } });
  }
  expect(at(runsPath({ person: "Ada & Co", status: "failed" }, pipelinePath("t", "p")))).toMatchObject({ filters: { person: "Ada & Co", status: "failed" } });
});

test("route: lines of an address", () => {
  expect(linesOf("#L9-L3")).toEqual({ from: 3, to: 9 });
  expect(linesOf(hashOf({ from: 7, to: 7 }))).toEqual({ from: 7, to: 7 });
  for (const bad of ["", "#L0", "#Lx", "#L1-", "#L99999999999999999999", "#x"]) expect(linesOf(bad), bad).toBeUndefined();
});

test("route: after the log-in one goes nowhere but to this page", () => {
  for (const bad of ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "", "/login?next=/", "/\n/evil.example"]) expect(safeNext(bad), bad).toBe("/");
  expect(safeNext("/runs/1?x=1#L2")).toBe("/runs/1?x=1#L2");
});

test("layout: what a step needs stands to its left, and no two stand in one place", () => {
  const shapes: Step[][] = [
    [],
    [{ name: "a", needs: [] }],
    [{ name: "a", needs: [] }, { name: "b", needs: ["a", "gone"] }, { name: "c", needs: ["a", "b"] }],
    wide(30, 20),
    Array.from({ length: 200 }, (_, i) => ({ name: `s${i}`, needs: i === 0 ? [] : [`s${Math.floor(i / 2)}`, `s${i - 1}`] })),
    [{ name: "a", needs: ["b"] }, { name: "b", needs: ["a"] }, { name: "c", needs: ["c"] }],
  ];
  for (const steps of shapes) {
    const { steps: placed, edges } = layout(steps);
    expect(placed.map((p) => p.name)).toEqual(steps.map((s) => s.name));
    expect(new Set(placed.map((p) => `${p.column} ${p.row}`)).size).toBe(steps.length);
    const isCircle = steps.some((s) => s.name === "a" && s.needs.includes("b"));
    for (const edge of edges) if (!isCircle) expect(edge.to.column).toBeGreaterThan(edge.from.column);
  }
});

test("layout: two stages of a hundred are joined by two hundred lines", () => {
  const { edges, rows } = layout(wide(100, 100));
  expect(edges.length).toBe(200);
  expect(rows).toBe(100);
  expect(layout(wide(2, 2)).edges.length).toBe(4);
});

test("layout: a thousand steps are laid out at once", () => {
  const steps = [0, 1, 2, 3].flatMap((stage) => Array.from({ length: 250 }, (_, i) => ({ name: `${stage}-${i}`, needs: stage === 0 ? [] : Array.from({ length: 250 }, (_, n) => `${stage - 1}-${n}`) })));
  const began = performance.now();
  expect(layout(steps).columns).toBe(4);
  expect(performance.now() - began).toBeLessThan(10_000);
});

function wide(a: number, b: number): Step[] {
  const first = Array.from({ length: a }, (_, i) => ({ name: `a${i}`, needs: [] as string[] }));
  return [...first, ...Array.from({ length: b }, (_, i) => ({ name: `b${i}`, needs: first.map((s) => s.name) }))];
}

test("waterfall: its scale has few, round times", () => {
  for (const span of [1_000, 1_001, 7_777, 65_000, 3_600_000, 9e7, 3e9]) {
    const all = ticks(span);
    expect(all[0]).toBe(0);
    expect(all.length, String(span)).toBeGreaterThan(1);
    expect(all.length, String(span)).toBeLessThanOrEqual(8);
    expect(all.at(-1)!).toBeLessThanOrEqual(span);
  }
});

test("time: durations, ages and amounts fit a column", () => {
  expect([0, 37, 949, 950, 9_949, 12_400, 59_600, 185_000, 7_800_000, 273_600_000].map(duration)).toEqual(["0 ms", "37 ms", "949 ms", "0.9 s", "9.9 s", "12 s", "1 m 00 s", "3 m 05 s", "2 h 10 m", "3 d 4 h"]);
  expect(duration(Number.NaN)).toBe("–");
  const now = Date.UTC(2026, 0, 31);
  expect([0, 20_000, 3e5, 1e7, 9e7, 2e8, 3e9].map((ms) => ago(now - ms, now))).toEqual(["just now", "20 s ago", "5 min ago", "2 h ago", "yesterday", "2 days ago", "2025-12-27"]);
  expect([0, 512, 1_536, 16_777_216, 1.5 * 2 ** 30].map(bytes)).toEqual(["0 B", "512 B", "1.5 KiB", "16 MiB", "1.5 GiB"]);
  expect([100, 500, 1_000, 2_500, 15_900, 16_000, 1_234_500].map(cores)).toEqual(["0.1 core", "0.5 core", "1 core", "2.5 cores", "15.9 cores", "16 cores", "1235 cores"]);
});
