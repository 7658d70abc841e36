// The scale of a waterfall: few, round times. Pure.

/** About how many lines the scale has. */
const TICKS = 6;

/** Round times that divide a span into about `TICKS`. */
export function ticks(span: number): number[] {
  const units = [100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 216e5, 864e5];
  const unit = units.find((u) => span / u <= TICKS) ?? 864e5 * Math.ceil(span / TICKS / 864e5);
  const all: number[] = [];
  for (let ms = 0; ms <= span * 0.97; ms += unit) all.push(ms);
  return all;
}
