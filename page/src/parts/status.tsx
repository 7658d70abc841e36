// A status as a shape, a colour and a word: the shape alone says it to those who see no colours.

import type { JSX } from "preact";
import type { Status } from "../api/types";

const WORDS: Record<Status, string> = {
  pending: "pending",
  queued: "queued",
  assigned: "starting",
  running: "running",
  success: "succeeded",
  failed: "failed",
  cancelled: "cancelled",
  timed_out: "timed out",
  skipped: "skipped",
};

/** The word for people. */
export function word(status: Status): string {
  return WORDS[status] ?? status;
}

const SHAPES: Record<Status, JSX.Element> = {
  pending: <circle cx="8" cy="8" r="5.75" class="stroke" stroke-dasharray="2.2 2.3" />,
  queued: (
    <>
      <circle cx="8" cy="8" r="5.75" class="stroke" />
      <path d="M8 5v3.2l2 1.3" class="stroke" />
    </>
  ),
  assigned: (
    <>
      <circle cx="8" cy="8" r="5.75" class="stroke" />
      <path d="M8 3.6a4.4 4.4 0 0 1 0 8.8z" class="fill" />
    </>
  ),
  running: (
    <>
      <circle cx="8" cy="8" r="5.75" class="stroke faint" />
      <path d="M8 2.25a5.75 5.75 0 0 1 5.75 5.75" class="stroke turn" />
      <circle cx="8" cy="8" r="2.1" class="fill" />
    </>
  ),
  success: (
    <>
      <circle cx="8" cy="8" r="6.5" class="fill" />
      <path d="M5.2 8.2l2 2 3.7-4.1" class="notch" />
    </>
  ),
  failed: (
    <>
      <path d="M5.3 1.5h5.4l3.8 3.8v5.4l-3.8 3.8H5.3l-3.8-3.8V5.3z" class="fill" />
      <path d="M5.7 5.7l4.6 4.6M10.3 5.7l-4.6 4.6" class="notch" />
    </>
  ),
  timed_out: (
    <>
      <path d="M4 1.75h8M4 14.25h8M4.8 1.9c0 3.3 2.4 4.2 3.2 6.1.8-1.9 3.2-2.8 3.2-6.1M4.8 14.1c0-3.3 2.4-4.2 3.2-6.1.8 1.9 3.2 2.8 3.2 6.1" class="stroke" />
    </>
  ),
  cancelled: (
    <>
      <circle cx="8" cy="8" r="5.75" class="stroke" />
      <path d="M4.2 11.8l7.6-7.6" class="stroke" />
    </>
  ),
  skipped: <path d="M3 4.5l3.5 3.5L3 11.5M8.5 4.5L12 8l-3.5 3.5" class="stroke" />,
};

/** The shape; with `bare` the word stands beside it already. */
export function StatusIcon({ status, bare }: { status: Status; bare?: boolean }) {
  const label = bare ? { "aria-hidden": true as const } : { role: "img" as const, "aria-label": word(status) };
  return (
    <svg class={`icon status-${status}`} viewBox="0 0 16 16" width="16" height="16" {...label}>
      {!bare && <title>{word(status)}</title>}
      {SHAPES[status] ?? SHAPES.pending}
    </svg>
  );
}

/** Shape and word. */
export function StatusBadge({ status, note }: { status: Status; note?: string }) {
  return (
    <span class={`badge status-${status}`} data-status={status}>
      <StatusIcon status={status} bare />
      <span>
        {word(status)}
        {note ? `, ${note}` : ""}
      </span>
    </span>
  );
}
