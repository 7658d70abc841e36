// What was searched for, within the pieces of a line. Pure.

import type { Piece } from "./ansi";

export interface Marked extends Piece {
  isMarked: boolean;
}

/** The pieces with every occurrence of `needle` as pieces of its own; capitals count if it has any. */
export function mark(pieces: readonly Piece[], needle: string): Marked[] {
  const text = pieces.map((piece) => piece.text).join("");
  const ranges = needle === "" ? [] : occurrences(text, needle);
  const marked: Marked[] = [];
  let at = 0;
  let next = 0;
  for (const piece of pieces) {
    const end = at + piece.text.length;
    let from = at;
    while (from < end) {
      while (next < ranges.length && ranges[next]!.to <= from) next++;
      const range = ranges[next];
      const isMarked = range !== undefined && range.from <= from;
      const to = Math.min(end, range === undefined ? end : isMarked ? range.to : range.from);
      marked.push({ ...piece, text: text.slice(from, to), isMarked });
      from = to;
    }
    at = end;
  }
  return marked;
}

function occurrences(text: string, needle: string): { from: number; to: number }[] {
  const isLower = needle === needle.toLowerCase();
  // Lowering may change the length of a few letters; then only exact ones are marked.
  const lowered = text.toLowerCase();
  const where = isLower && lowered.length === text.length ? lowered : text;
  const found: { from: number; to: number }[] = [];
  for (let at = where.indexOf(needle); at >= 0; at = where.indexOf(needle, at + needle.length)) {
    found.push({ from: at, to: at + needle.length });
  }
  return found;
}

const ADDRESS = /https?:\/\/[^\s"'<>`{}|\\^\u0000-\u001f]+/gi;

/** Text in parts, of which some are addresses of the web. */
export function addresses(text: string): { text: string; isAddress: boolean }[] {
  if (!text.includes("://")) return [{ text, isAddress: false }];
  const parts: { text: string; isAddress: boolean }[] = [];
  let at = 0;
  for (const found of text.matchAll(ADDRESS)) {
    const address = trimmed(found[0]);
    if (found.index > at) parts.push({ text: text.slice(at, found.index), isAddress: false });
    parts.push({ text: address, isAddress: true });
    at = found.index + address.length;
  }
  if (at < text.length) parts.push({ text: text.slice(at), isAddress: false });
  return parts;
}

/** A sentence's full stop and a bracket that was opened before are not part of an address. */
function trimmed(address: string): string {
  let text = address.replace(/[.,;:!?]+$/, "");
  while (/[)\]]$/.test(text)) {
    const [open, close] = text.endsWith(")") ? ["(", ")"] : ["[", "]"];
    if (text.split(open!).length >= text.split(close!).length) break;
    text = text.slice(0, -1).replace(/[.,;:!?]+$/, "");
  }
  return text;
}
