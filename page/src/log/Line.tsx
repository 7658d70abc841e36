// One line of a log as text nodes and spans: whatever a step prints, it never becomes markup.

import { memo } from "preact/compat";
import { count } from "../parts/time";
import { parse, safeLink, type Colour, type Piece, type Style } from "./ansi";
import { addresses, mark, type Marked } from "./marks";

interface Props {
  text: string;
  start: Style;
  needle: string;
  /** How many bytes the line has, when not all of them are here. */
  length: number | undefined;
  /** Where all of it is. */
  raw: string;
}

export const LineText = memo(function LineText({ text, start, needle, length, raw }: Props) {
  const { pieces, cut } = parse(text, start);
  const isCut = cut > 0 || length !== undefined;
  return (
    <code class="tx">
      {mark(pieces, needle).map((piece, i) => (
        <Drawn key={i} piece={piece} />
      ))}
      {isCut && (
        <a class="cut" href={raw} target="_blank" rel="noopener noreferrer">
          … the whole line{length === undefined ? "" : `, ${count(length)} bytes`}
        </a>
      )}
    </code>
  );
});

function Drawn({ piece }: { piece: Marked }) {
  const inner = piece.link !== undefined ? <Out href={piece.link}>{piece.text}</Out> : linked(piece);
  const text = piece.isMarked ? <mark>{inner}</mark> : inner;
  const look = looks(piece.style);
  return look ? <span {...look}>{text}</span> : <>{text}</>;
}

function linked(piece: Piece) {
  const parts = addresses(piece.text);
  if (parts.length === 1 && !parts[0]!.isAddress) return piece.text;
  return parts.map((part, i) => {
    const href = part.isAddress ? safeLink(part.text) : undefined;
    return href === undefined ? (
      part.text
    ) : (
      <Out key={i} href={href}>
        {part.text}
      </Out>
    );
  });
}

function Out({ href, children }: { href: string; children: string | (string | object)[] }) {
  return (
    <a href={href} target="_blank" rel="noopener noreferrer nofollow" title={href}>
      {children as string}
    </a>
  );
}

function looks(style: Style): { class?: string; style?: Record<string, string> } | undefined {
  const names: string[] = [];
  const own: Record<string, string> = {};
  const [fg, bg] = style.inverse ? [style.bg ?? "ground", style.fg ?? "text"] : [style.fg, style.bg];
  colour(fg, "fg", "color", names, own);
  colour(bg, "bg", "background-color", names, own);
  if (style.bold) names.push("t-bold");
  if (style.dim) names.push("t-dim");
  if (style.italic) names.push("t-italic");
  if (style.underline) names.push("t-under");
  if (style.strike) names.push("t-strike");
  const hasOwn = Object.keys(own).length > 0;
  if (names.length === 0 && !hasOwn) return undefined;
  return { ...(names.length ? { class: names.join(" ") } : {}), ...(hasOwn ? { style: own } : {}) };
}

function colour(value: Colour | undefined, kind: "fg" | "bg", property: string, names: string[], own: Record<string, string>): void {
  if (typeof value === "number") names.push(`t-${kind}${value}`);
  else if (value === "ground" || value === "text") names.push(`t-${kind}-${value}`);
  else if (value !== undefined) own[property] = value;
}
