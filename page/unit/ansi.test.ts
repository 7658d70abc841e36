import { expect, test } from "@playwright/test";
import { after, CHARS_MAX, parse, PIECES_MAX, plain, PLAIN, safeLink, type Style } from "../src/log/ansi";

const E = "\x1b";
const pieces = (line: string, start: Style = PLAIN) => parse(line, start).pieces.map((p) => [p.text, p.style] as const);

const CASES: [name: string, line: string, pieces: [string, Style][]][] = [
  ["plain text is one piece", "hello <b>&amp;", [["hello <b>&amp;", {}]]],
  ["an empty line has none", "", []],
  ["a colour ends with its reset", `${E}[31mred${E}[0m not`, [["red", { fg: 1 }], [" not", {}]]],
  ["an empty parameter is a reset", `${E}[1;31mx${E}[my`, [["x", { bold: true, fg: 1 }], ["y", {}]]],
  ["bright colours are 8 to 15", `${E}[92;104mx`, [["x", { fg: 10, bg: 12 }]]],
  ["colours of 256: the palette, the cube, the greys", `${E}[38;5;9ma${E}[38;5;196mb${E}[38;5;255mc`, [["a", { fg: 9 }], ["b", { fg: "#ff0000" }], ["c", { fg: "#eeeeee" }]]],
  ["true colour, with ; and with :", `${E}[38;2;1;2;255ma${E}[0m${E}[48:2:10:20:30mb`, [["a", { fg: "#0102ff" }], ["b", { bg: "#0a141e" }]]],
  ["a colour out of range changes nothing", `${E}[38;5;300;1mx${E}[38;2;1;2;999my`, [["xy", { bold: true }]]],
  ["single styles go on and off", `${E}[1;2;3;4;7;9ma${E}[22;23;24;27;29mb`, [["a", { bold: true, dim: true, italic: true, underline: true, inverse: true, strike: true }], ["b", {}]]],
  ["default colours", `${E}[31;41ma${E}[39mb${E}[49mc`, [["a", { fg: 1, bg: 1 }], ["b", { bg: 1 }], ["c", {}]]],
  ["cursor movements, clearing and modes vanish", `a${E}[2Kb${E}[10;3Hc${E}[?25ld${E}(Be${E}=f`, [["abcdef", {}]]],
  ["an unfinished sequence vanishes", `a${E}[31`, [["a", {}]]],
  ["a progress bar shows its last state", "10%\r50%\r100%", [["100%", {}]]],
  ["a return at the end is a line end of Windows", "text\r", [["text", {}]]],
  ["control characters and turned writing vanish", "a\x00b\x07c\x7fd\u202ee\u2066f\u200fg", [["abcdefg", {}]]],
  ["tabs stay", "a\tb", [["a\tb", {}]]],
  ["titles and other commands vanish", `${E}]0;evil title\x07x${E}P1;2|data${E}\\y`, [["xy", {}]]],
];

for (const [name, line, expected] of CASES) {
  test(`ansi: ${name}`, () => {
    expect(pieces(line)).toEqual(expected);
    expect(plain(line)).toBe(expected.map(([text]) => text).join(""));
  });
}

test("ansi: a style goes on in the next line, and `after` agrees with `parse`", () => {
  for (const line of [`x${E}[31my`, `${E}[1mx${E}[0m`, "plain", `${E}[4;38;5;100mx${E}[24m`]) {
    const start: Style = { bg: 3 };
    expect(after(line, start)).toEqual(parse(line, start).end);
  }
  expect(pieces("go on", parse(`${E}[35mbegin`, PLAIN).end)).toEqual([["go on", { fg: 5 }]]);
});

test("ansi: a program's link is kept if it is one of the web, and only then", () => {
  const linked = (address: string) => parse(`${E}]8;id=1;${address}${E}\\text${E}]8;;${E}\\ more`, PLAIN).pieces;
  expect(linked("https://example.org/a?b")).toEqual([
    { text: "text", style: {}, link: "https://example.org/a?b" },
    { text: " more", style: {} },
  ]);
  for (const bad of ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "JaVaScRiPt:x", "//evil.example", "", " https://x"]) {
    expect(linked(bad), bad).toEqual([{ text: "text more", style: {} }]);
  }
});

test("ansi: addresses that a click may open", () => {
  for (const good of ["http://a.example/", "HTTPS://a.example/x"]) expect(safeLink(good)).toBeTruthy();
  for (const bad of ["javascript://x%0aalert(1)", "ftp://x", "http//x", "https://", `https://x/${"a".repeat(3_000)}`, "\tjavascript:x"]) {
    expect(safeLink(bad), bad).toBeUndefined();
  }
});

test("ansi: however long or colourful a line is, what is drawn of it is bounded", () => {
  const long = parse("x".repeat(100_000), PLAIN);
  expect(long.pieces[0]!.text.length).toBe(CHARS_MAX);
  expect(long.cut).toBe(100_000 - CHARS_MAX);
  const colourful = Array.from({ length: 50_000 }, (_, i) => `${E}[3${i % 8}mx`).join("");
  expect(parse(colourful, PLAIN).pieces.length).toBeLessThanOrEqual(PIECES_MAX);
  const parameters = parse(`${E}[${"1;".repeat(50_000)}31mx`, PLAIN);
  expect(parameters.pieces.map((p) => p.text)).toEqual(["x"]);
  const half = parse(`${"x".repeat(CHARS_MAX - 1)}😀`, PLAIN).pieces[0]!.text;
  expect(half).toBe("x".repeat(CHARS_MAX - 1));
});

test("ansi: noise never breaks it, takes long, or leaves a control character", () => {
  let seed = 12_345;
  const random = (n: number) => (seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31) % n;
  const alphabet = [E, "[", "]", ";", ":", "m", "8", "3", "1", "\x07", "\\", "\r", "x", "(", "P", "\u0000", "😀", "<"];
  for (let round = 0; round < 3_000; round++) {
    const line = Array.from({ length: random(200) }, () => alphabet[random(alphabet.length)]).join("");
    const { pieces } = parse(line, PLAIN);
    const text = pieces.map((p) => p.text).join("");
    if (/[\u0000-\u0008\u000a-\u001f]/.test(text) || text.length > line.length) throw new Error(JSON.stringify(line));
  }
});

test("ansi: no line takes more than its length", () => {
  for (const evil of [`${E}]8;`, `${E}[`, `${E}P`, E, `${E}[1;`, `${E}[1m`, "\r", "\u202e"]) {
    const time = (n: number) => {
      const began = performance.now();
      parse(evil.repeat(n), PLAIN);
      return performance.now() - began;
    };
    time(1_000);
    // Were it quadratic, thirty times as much would take a thousand times as long.
    expect(time(60_000), JSON.stringify(evil)).toBeLessThan(200 * (time(2_000) + 10));
  }
});
