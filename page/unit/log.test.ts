import { expect, test } from "@playwright/test";
import { firstError, lastWords } from "../src/log/failure";
import { Rows, sectionOf, type Section } from "../src/log/folds";
import { addresses, mark } from "../src/log/marks";
import { drawn, height, HEIGHT_MAX, isAtEnd, reveal, rowAt, scrollTo, SPARE, type Geometry } from "../src/log/window";

const geometry = (rows: number): Geometry => ({ rows, row: 20, screen: 600 });

test("window: every row is on the screen at the place that it is asked for", () => {
  for (const rows of [1, 29, 31, 1_000, 100_000, 400_001, 50_000_000, 500_000_000]) {
    const g = geometry(rows);
    expect(height(g)).toBeLessThanOrEqual(HEIGHT_MAX);
    for (const row of [0, 1, 17, Math.floor(rows / 3), Math.floor(rows / 2), rows - 40, rows - 1]) {
      if (row < 0 || row >= rows) continue;
      const scroll = scrollTo(g, row);
      const first = rowAt(g, scroll);
      expect(row - first, `${row} of ${rows}`).toBeGreaterThanOrEqual(-0.01);
      expect(row - first, `${row} of ${rows}`).toBeLessThan(30);
      const { from, to, top } = drawn(g, scroll);
      expect(from).toBeLessThanOrEqual(row);
      expect(to).toBeGreaterThan(row);
      expect(to - from).toBeLessThanOrEqual(30 + 2 * SPARE + 2);
      // The row is drawn within the screen.
      const y = top + (row - from) * g.row - scroll;
      expect(y).toBeGreaterThan(-1);
      expect(y).toBeLessThan(g.screen);
    }
  }
});

test("window: the ends are the ends", () => {
  for (const rows of [0, 10, 31, 100_000, 90_000_000]) {
    const g = geometry(rows);
    const end = height(g) - g.screen;
    expect(rowAt(g, 0)).toBe(0);
    expect(isAtEnd(g, end)).toBe(true);
    expect(drawn(g, end).to).toBe(rows);
    if (rows > 100) expect(isAtEnd(g, end / 2)).toBe(false);
    // Where one pixel of scrolling is many rows, the last of them are all the end.
    if (rows === 100_000) expect(isAtEnd(g, scrollTo(g, rows - 32))).toBe(false);
  }
});

test("window: what is well on the screen is not moved", () => {
  const g = geometry(1_000);
  const scroll = scrollTo(g, 100);
  expect(reveal(g, 110, scroll)).toBe(scroll);
  expect(rowAt(g, reveal(g, 500, scroll))).toBeCloseTo(490);
  expect(rowAt(g, reveal(g, 99, scroll))).toBeCloseTo(89);
  expect(reveal(g, 3, scroll)).toBe(0);
});

const sections: Section[] = [
  { line: 1, title: "a", named: false },
  { line: 5, title: "b", named: true },
  { line: 6, title: "c", named: true },
  { line: 20, title: "d", named: true },
];

test("folds: rows and lines are the inverse of each other, whatever is folded", () => {
  for (let chosen = 0; chosen < 16; chosen++) {
    const folded = new Set(sections.filter((_, i) => chosen & (1 << i)).map((s) => s.line));
    for (const total of [0, 3, 5, 6, 19, 20, 40]) {
      const rows = new Rows(total, sections.filter((s) => s.line <= total), folded);
      const seen: number[] = [];
      for (let row = 0; row < rows.count; row++) {
        const line = rows.lineOf(row);
        seen.push(line);
        expect(rows.rowOf(line), `line ${line}`).toBe(row);
      }
      const expected = Array.from({ length: total }, (_, i) => i + 1).filter((line) => {
        const head = sections.findLast((s) => s.line <= line)!;
        return line === head.line || !folded.has(head.line);
      });
      expect(seen).toEqual(expected);
      for (let line = 1; line <= total; line++) {
        if (!seen.includes(line)) expect(rows.lineOf(rows.rowOf(line))).toBe(sectionOf(sections, line)!.line);
      }
    }
  }
});

test("marks: what was searched for is marked across colours", () => {
  const red = { fg: 1 };
  const marked = (texts: [string, object][], needle: string) =>
    mark(texts.map(([text, style]) => ({ text, style })), needle).map((p) => (p.isMarked ? `[${p.text}]` : p.text));
  expect(marked([["an error here", {}]], "error")).toEqual(["an ", "[error]", " here"]);
  expect(marked([["an ERR", red], ["OR here", {}]], "error")).toEqual(["an ", "[ERR]", "[OR]", " here"]);
  expect(marked([["Error error", {}]], "Error")).toEqual(["[Error]", " error"]);
  expect(marked([["aaaa", {}]], "aa")).toEqual(["[aa]", "[aa]"]);
  expect(marked([["nothing", {}]], "")).toEqual(["nothing"]);
  expect(marked([["İx", {}]], "x").join("")).toContain("[x]");
});

test("marks: addresses end where a sentence goes on", () => {
  const found = (text: string) => addresses(text).filter((p) => p.isAddress).map((p) => p.text);
  expect(found("see https://a.example/x?y=1#z.")).toEqual(["https://a.example/x?y=1#z"]);
  expect(found("(http://a.example/b_(c)), http://d.example")).toEqual(["http://a.example/b_(c)", "http://d.example"]);
  expect(found(`<a href="https://a.example/">`)).toEqual(["https://a.example/"]);
  expect(found("javascript://x")).toEqual([]);
  const whole = "x https://a.example y";
  expect(addresses(whole).map((p) => p.text).join("")).toBe(whole);
});

const ERRORS: [string, string[], number | undefined][] = [
  ["rustc", ["   Compiling x", "warning: unused", "error[E0308]: mismatched types", "  --> src/main.rs:3"], 2],
  ["gcc", ["make: entering", "x.c:3:5: error: expected ';'", "make: *** [x] Error 1"], 1],
  ["make without a compiler's word", ["cc x.c", "make: *** [all] Error 2"], 1],
  ["go test", ["ok  a", "--- FAIL: TestX (0.00s)", "FAIL"], 1],
  ["pytest", ["test_x.py F", "E       AssertionError: 1 != 2", "1 failed"], 1],
  ["shell", ["$ foo", "sh: foo: not found"], 1],
  ["colours", ["\x1b[1;31merror\x1b[0m: no", "x"], 0],
  ["words that say the contrary", ["0 errors, 0 warnings", "no failures", "-Werror is on", "done"], undefined],
];
for (const [name, lines, at] of ERRORS) test(`failure: ${name}`, () => expect(firstError(lines)).toBe(at));

test("failure: last words are the last that are some", () => {
  expect(lastWords(["a", "b", " ", "\x1b[0m"])).toBe(1);
  expect(lastWords([])).toBeUndefined();
});
