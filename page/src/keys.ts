// Keys: which do what, everywhere and in the view that is shown, for the sheet that lists them and
// for the listener that obeys. Not here: what they do.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";

export interface Key {
  /** As the browser names it, e.g. `/`, `Escape`, `g r` for one after the other. */
  keys: string;
  what: string;
  act: () => void;
}

const everywhere = signal<Key[]>([]);
const here = signal<Key[]>([]);

/** True while the sheet of keys is shown. */
export const isSheetOpen = signal(false);

/** The keys of the view that is shown, and those that work everywhere. */
export function listed(): { here: Key[]; everywhere: Key[] } {
  return { here: here.value, everywhere: everywhere.value };
}

/** How soon the second of two keys must follow, milliseconds. */
const SECOND_MS = 1_200;

export function useKeys(make: () => Key[], inputs: readonly unknown[]): void {
  useEffect(() => {
    const keys = make();
    here.value = [...here.value, ...keys];
    return () => {
      here.value = here.value.filter((key) => !keys.includes(key));
    };
  }, inputs);
}

/** Listens; `keys` work in every view. */
export function listen(keys: Key[]): void {
  everywhere.value = keys;
  let first = "";
  let since = 0;
  window.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (isTyping(event.target) && event.key !== "Escape") return;
    const isSecond = first !== "" && performance.now() - since < SECOND_MS;
    const pressed = isSecond ? `${first} ${event.key}` : event.key;
    const all = [...here.value, ...everywhere.value];
    const key = all.find((k) => k.keys === pressed);
    if (key) {
      first = "";
      event.preventDefault();
      key.act();
      return;
    }
    const begins = all.some((k) => k.keys.startsWith(`${event.key} `));
    [first, since] = begins ? [event.key, performance.now()] : ["", 0];
  });
}

function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

/** Moves the focus among the rows of a list: elements with `data-row`. */
export function moveRow(by: number): void {
  const rows = [...document.querySelectorAll<HTMLElement>("[data-row]")];
  if (rows.length === 0) return;
  const at = rows.findIndex((row) => row === document.activeElement || row.contains(document.activeElement));
  const next = at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.max(0, Math.min(rows.length - 1, at + by));
  rows[next]!.focus();
  rows[next]!.scrollIntoView({ block: "nearest" });
}
