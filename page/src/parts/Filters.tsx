// What a list of runs is narrowed to; it stands in the address, so a narrowed list can be sent to others.

import { useEffect, useRef } from "preact/hooks";
import type { RunStatus } from "../api/types";
import { go } from "../app";
import { useKeys } from "../keys";
import { runsPath, type Filters } from "../route";
import { StatusIcon, word } from "./status";

const STATUSES: RunStatus[] = ["queued", "running", "success", "failed", "cancelled", "timed_out"];

/** How long after the last key a filter is applied. */
const TYPING_MS = 250;

export function FilterBar({ filters, base, pipelines }: { filters: Filters; base: string; pipelines?: string[] }) {
  const first = useRef<HTMLInputElement>(null);
  const timer = useRef(0);
  useKeys(() => [{ keys: "/", what: "Narrow the list", act: () => first.current?.focus() }], []);
  const apply = (name: keyof Filters, value: string) => {
    const next = { ...filters };
    if (value) next[name] = value;
    else delete next[name];
    go(runsPath(next, base), "replace");
  };
  const later = (name: keyof Filters, value: string) => {
    window.clearTimeout(timer.current);
    timer.current = window.setTimeout(() => apply(name, value.trim()), TYPING_MS);
  };
  useEffect(() => () => window.clearTimeout(timer.current), []);
  const isNarrowed = Object.keys(filters).length > 0;
  return (
    <form class="filters" role="search" aria-label="Narrow the list of runs" onSubmit={(e) => e.preventDefault()}>
      <div class="segments" role="group" aria-label="Status">
        <button type="button" aria-pressed={!filters.status} onClick={() => apply("status", "")}>
          All
        </button>
        {STATUSES.map((status) => (
          <button type="button" key={status} aria-pressed={filters.status === status} onClick={() => apply("status", filters.status === status ? "" : status)}>
            <StatusIcon status={status} bare />
            {word(status)}
          </button>
        ))}
      </div>
      {pipelines && (
        <label>
          <span class="unseen">Pipeline</span>
          <select value={filters.pipeline ?? ""} onChange={(e) => apply("pipeline", e.currentTarget.value)}>
            <option value="">Every pipeline</option>
            {[...new Set([...pipelines, ...(filters.pipeline ? [filters.pipeline] : [])])].map((name) => (
              <option key={name} value={name}>
                {name.replace(/^default\//, "")}
              </option>
            ))}
          </select>
        </label>
      )}
      <label>
        <span class="unseen">Branch</span>
        <input ref={first} key={`b${filters.branch ?? ""}`} type="search" placeholder="Branch" defaultValue={filters.branch ?? ""} maxLength={200} onInput={(e) => later("branch", e.currentTarget.value)} />
      </label>
      <label>
        <span class="unseen">Person</span>
        <input key={`p${filters.person ?? ""}`} type="search" placeholder="Person" defaultValue={filters.person ?? ""} maxLength={200} onInput={(e) => later("person", e.currentTarget.value)} />
      </label>
      {isNarrowed && (
        <a class="clear" href={base}>
          Show all
        </a>
      )}
    </form>
  );
}
