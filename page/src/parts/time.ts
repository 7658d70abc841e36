// Times and amounts in words that fit a column. Pure: `now` is given.

/** `0.4 s`, `12 s`, `3 m 05 s`, `2 h 10 m`, `3 d 4 h`. */
export function duration(ms: number): string {
  if (!(ms >= 0)) return "–";
  if (ms < 950) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const [m, s] = [Math.floor(whole / 60), whole % 60];
  if (m < 60) return `${m} m ${String(s).padStart(2, "0")} s`;
  const [h, rest] = [Math.floor(m / 60), m % 60];
  if (h < 24) return `${h} h ${String(rest).padStart(2, "0")} m`;
  return `${Math.floor(h / 24)} d ${h % 24} h`;
}

/** `just now`, `5 min ago`, `3 h ago`, `yesterday`, `12 days ago`, or the date. */
export function ago(at: number, now: number): string {
  const seconds = Math.max(0, (now - at) / 1000);
  if (seconds < 10) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ago`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ago`;
  const days = Math.floor(hours / 24);
  if (days === 1) return "yesterday";
  if (days < 31) return `${days} days ago`;
  return new Date(at).toISOString().slice(0, 10);
}

/** The exact time, for those who rest on a relative one. */
export function exact(at: number): string {
  return new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** `512 MiB`, `1.5 GiB`. */
export function bytes(n: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let [value, unit] = [n, 0];
  while (value >= 1024 && unit < units.length - 1) (value /= 1024, unit++);
  return `${value < 10 && unit > 0 && value % 1 !== 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** `2 cores`, `0.5 core`. */
export function cores(millis: number): string {
  const n = millis / 1000;
  const text = Number.isInteger(n) || n >= 1_000 ? String(Math.round(n)) : n.toFixed(n < 1 ? 2 : 1).replace(/\.?0$/, "");
  return `${text} ${n === 1 || n < 1 ? "core" : "cores"}`;
}

export function count(n: number): string {
  return n.toLocaleString("en-US");
}
