// A line of a terminal's output as pieces of text with their style; nothing of it is ever markup.
// Bounded: of a line so many pieces and characters are made, whatever a step prints.
// Not here: how a piece is drawn (`Line`), which lines there are (`store`).

/** Colours: 0–15 of the palette by number, or `#rrggbb`. */
export type Colour = number | string;

/** How text is drawn; equal styles are equal by `sameStyle`. */
export interface Style {
  fg?: Colour;
  bg?: Colour;
  bold?: boolean;
  dim?: boolean;
  italic?: boolean;
  underline?: boolean;
  strike?: boolean;
  inverse?: boolean;
}

/** Text in one style; with `link`, an http(s) address that the program gave for it. */
export interface Piece {
  text: string;
  style: Style;
  link?: string;
}

/** Text without any style. */
export const PLAIN: Style = Object.freeze({});

/** The most pieces of a line: a rainbow over a wide screen. What follows is one piece without style. */
export const PIECES_MAX = 1_000;

/** The most characters of a line that are drawn. */
export const CHARS_MAX = 4_096;

/** The longest address of a link. */
const LINK_MAX = 2_000;

/** The most parameters of one sequence. */
const PARAMETERS_MAX = 32;

/** What follows ESC: CSI, OSC and its like with their end, a character set, or one character. */
const ESCAPE = /\x1b(?:\[([0-?]*)[ -/]*([@-~]?)|\](?:([^\x07\x1b]*)(?:\x07|\x1b\\|$))|[P^_X][^\x07\x1b]*(?:\x07|\x1b\\|$)|[()][\s\S]?|[ -~]|$)|\x1b/g;

/** A line in pieces, beginning in `start`; `cut` characters at its end are left out. */
export function parse(line: string, start: Style): { pieces: Piece[]; end: Style; cut: number } {
  const text = afterReturn(line);
  const pieces: Piece[] = [];
  let style = start;
  let link: string | undefined;
  let room = CHARS_MAX;
  let cut = 0;
  const add = (part: string) => {
    const shown = withoutControls(part);
    if (shown === "") return;
    const kept = shown.length <= room ? shown : whole(shown.slice(0, room));
    cut += shown.length - kept.length;
    room -= kept.length;
    if (kept === "") return;
    const last = pieces[pieces.length - 1];
    if (pieces.length >= PIECES_MAX) {
      last!.text += kept;
    } else if (last && last.link === link && sameStyle(last.style, style)) {
      last.text += kept;
    } else {
      pieces.push(link === undefined ? { text: kept, style } : { text: kept, style, link });
    }
  };
  let at = 0;
  for (const found of text.matchAll(ESCAPE)) {
    add(text.slice(at, found.index));
    at = found.index + found[0].length;
    if (found[2] === "m") style = styled(style, found[1] ?? "");
    if (found[3] !== undefined) link = linked(found[3], link);
  }
  add(text.slice(at));
  return { pieces, end: style, cut };
}

/** The style after a line; quick where there is nothing to find. */
export function after(line: string, start: Style): Style {
  if (!line.includes("\x1b[")) return start;
  let style = start;
  for (const found of afterReturn(line).matchAll(ESCAPE)) {
    if (found[2] === "m") style = styled(style, found[1] ?? "");
  }
  return style;
}

/** A line as plain text. */
export function plain(line: string): string {
  return withoutControls(afterReturn(line).replace(ESCAPE, ""));
}

export function sameStyle(a: Style, b: Style): boolean {
  return (
    a === b ||
    (a.fg === b.fg &&
      a.bg === b.bg &&
      !a.bold === !b.bold &&
      !a.dim === !b.dim &&
      !a.italic === !b.italic &&
      !a.underline === !b.underline &&
      !a.strike === !b.strike &&
      !a.inverse === !b.inverse)
  );
}

/** A progress bar writes over itself: what stands after the last return is what a terminal shows. */
function afterReturn(line: string): string {
  let end = line.length;
  while (end > 0 && line.charCodeAt(end - 1) === 13) end--;
  const from = line.lastIndexOf("\r", end - 1);
  return end === line.length && from < 0 ? line : line.slice(from + 1, end);
}

function withoutControls(text: string): string {
  // Characters that turn the direction of writing could show another text than there is.
  return text.replace(/[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "");
}

/** Without half a character at the end. */
function whole(text: string): string {
  const last = text.charCodeAt(text.length - 1);
  return last >= 0xd800 && last <= 0xdbff ? text.slice(0, -1) : text;
}

/** `8;parameters;address` sets a link, with an empty address it ends; other commands change nothing. */
function linked(command: string, link: string | undefined): string | undefined {
  const found = /^8;[^;]*;(.*)$/.exec(command);
  return found ? safeLink(found[1]!) : link;
}

/** An address that may be opened by a click: http or https only. */
export function safeLink(address: string): string | undefined {
  if (address.length === 0 || address.length > LINK_MAX || !/^https?:\/\//i.test(address)) return undefined;
  try {
    const url = new URL(address);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : undefined;
  } catch {
    return undefined;
  }
}

function styled(before: Style, parameters: string): Style {
  const numbers = parameters
    .split(/[;:]/, PARAMETERS_MAX)
    .map((text) => (/^\d{1,3}$/.test(text) ? Number(text) : text === "" ? 0 : -1));
  const style: Style = { ...before };
  for (let at = 0; at < numbers.length; at++) {
    const number = numbers[at]!;
    if (number === 38 || number === 48) {
      const { colour, used } = extended(numbers, at + 1);
      if (colour !== undefined) style[number === 38 ? "fg" : "bg"] = colour;
      at += used;
    } else {
      set(style, number);
    }
  }
  return style;
}

function set(style: Style, number: number): void {
  if (number === 0) {
    for (const name of Object.keys(style) as (keyof Style)[]) delete style[name];
  } else if (number === 1) style.bold = true;
  else if (number === 2) style.dim = true;
  else if (number === 3) style.italic = true;
  else if (number === 4 || number === 21) style.underline = true;
  else if (number === 7) style.inverse = true;
  else if (number === 9) style.strike = true;
  else if (number === 22) (delete style.bold, delete style.dim);
  else if (number === 23) delete style.italic;
  else if (number === 24) delete style.underline;
  else if (number === 27) delete style.inverse;
  else if (number === 29) delete style.strike;
  else if (number >= 30 && number <= 37) style.fg = number - 30;
  else if (number === 39) delete style.fg;
  else if (number >= 40 && number <= 47) style.bg = number - 40;
  else if (number === 49) delete style.bg;
  else if (number >= 90 && number <= 97) style.fg = number - 82;
  else if (number >= 100 && number <= 107) style.bg = number - 92;
}

/** `5;n` or `2;r;g;b` after 38 or 48. */
function extended(numbers: number[], at: number): { colour?: Colour; used: number } {
  const byte = (index: number) => {
    const value = numbers[index];
    return value !== undefined && value >= 0 && value <= 255 ? value : undefined;
  };
  if (numbers[at] === 5) {
    const index = byte(at + 1);
    return index === undefined ? { used: 2 } : { colour: ofPalette(index), used: 2 };
  }
  if (numbers[at] === 2) {
    const [r, g, b] = [byte(at + 1), byte(at + 2), byte(at + 3)];
    if (r === undefined || g === undefined || b === undefined) return { used: 4 };
    return { colour: hex(r, g, b), used: 4 };
  }
  return { used: 1 };
}

function ofPalette(index: number): Colour {
  if (index < 16) return index;
  if (index >= 232) {
    const grey = 8 + (index - 232) * 10;
    return hex(grey, grey, grey);
  }
  const level = (n: number) => (n === 0 ? 0 : 55 + n * 40);
  const cube = index - 16;
  return hex(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6));
}

function hex(r: number, g: number, b: number): string {
  return `#${[r, g, b].map((n) => n.toString(16).padStart(2, "0")).join("")}`;
}
