// Which rows of a long list are on the screen: scroll position and row numbers, both ways.
// Rows are of one height. A list that is taller than a browser can scroll is scaled.
// Not here: which line stands in a row (`folds`), drawing.

/** No browser that is in use scrolls less: somewhat under what Firefox takes. */
export const HEIGHT_MAX = 16_000_000;

/** Rows that are drawn above and below the screen, so that a quick scroll shows no gap. */
export const SPARE = 20;

export interface Geometry {
  /** How many rows there are. */
  rows: number;
  /** The height of a row, pixels. */
  row: number;
  /** The height of the screen, pixels. */
  screen: number;
}

/** The height that the browser is told. */
export function height(g: Geometry): number {
  return Math.max(g.screen, Math.min(g.rows * g.row, HEIGHT_MAX));
}

/** How many pixels of the list one pixel of scrolling moves. */
function scale(g: Geometry): number {
  const real = g.rows * g.row - g.screen;
  const told = height(g) - g.screen;
  return real <= 0 || told <= 0 ? 1 : real / told;
}

/** The first row on the screen (from 0, with its fraction) at a scroll position. */
export function rowAt(g: Geometry, scroll: number): number {
  return Math.max(0, Math.min(scroll * scale(g), g.rows * g.row - g.screen)) / g.row;
}

/** The scroll position at which a row is the first on the screen. */
export function scrollTo(g: Geometry, row: number): number {
  const most = height(g) - g.screen;
  return Math.max(0, Math.min((row * g.row) / scale(g), most));
}

/** The scroll position at which a row stands a third down the screen; as it is, if it is well on it. */
export function reveal(g: Geometry, row: number, scroll: number): number {
  const first = rowAt(g, scroll);
  const shown = g.screen / g.row;
  if (row >= first + 1 && row <= first + shown - 3) return scroll;
  return scrollTo(g, Math.max(0, row - shown / 3));
}

/** The rows to draw, `to` not included, and where the first of them begins within the told height. */
export function drawn(g: Geometry, scroll: number): { from: number; to: number; top: number } {
  const first = rowAt(g, scroll);
  const from = Math.max(0, Math.floor(first) - SPARE);
  const to = Math.min(g.rows, Math.ceil(first + g.screen / g.row) + SPARE);
  // The first row on the screen stands where the browser has scrolled to.
  return { from, to, top: scroll - (first - from) * g.row };
}

/** True when the end of the list is on the screen: less than half a row is below it. */
export function isAtEnd(g: Geometry, scroll: number): boolean {
  return scroll >= height(g) - g.screen - Math.max(2, g.row / 2 / scale(g));
}
