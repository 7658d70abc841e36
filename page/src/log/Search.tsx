// What was found in a log: asked of the server, shown in pages, walked through by keys.

import { signal, type Signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { api, Refused } from "../api/client";
import type { LogMatch } from "../api/types";
import { count } from "../parts/time";
import { mark } from "./marks";

/** Matches of one request. */
const PAGE = 500;

/** Matches that are kept; a search for `e` needs no more. */
const KEPT_MAX = 5_000;

/** How many requests one search makes by itself: each looks at a bounded part of the log. */
const ROUNDS_MAX = 24;

export interface Found {
  matches: Signal<LogMatch[]>;
  /** Where to search on. */
  next: Signal<number | null>;
  state: Signal<"none" | "busy" | "done">;
  said: Signal<string>;
  /** The match that is shown. */
  at: Signal<number>;
  more: () => void;
  /** Goes to another match and answers its line. */
  step: (by: number, from: number) => number | undefined;
}

export function useSearch(run: string, step: string, attempt: number | undefined, q: string): Found {
  const search = useMemo(() => new Search(run, step, attempt, q), [run, step, attempt, q]);
  useEffect(() => {
    search.begin();
    return () => search.end();
  }, [search]);
  return search;
}

class Search implements Found {
  readonly matches = signal<LogMatch[]>([]);
  readonly next = signal<number | null>(null);
  readonly state = signal<"none" | "busy" | "done">("none");
  readonly said = signal("");
  readonly at = signal(-1);
  private stop = new AbortController();

  constructor(
    private readonly run: string,
    private readonly name: string,
    private readonly attempt: number | undefined,
    private readonly q: string,
  ) {}

  begin(): void {
    if (this.q === "") return;
    this.stop = new AbortController();
    void this.go(1);
  }

  end(): void {
    this.stop.abort();
  }

  readonly more = (): void => {
    const next = this.next.value;
    if (next !== null && this.state.value !== "busy") void this.go(next);
  };

  readonly step = (by: number, from: number): number | undefined => {
    const all = this.matches.value;
    if (all.length === 0) return undefined;
    if (this.at.value < 0) {
      const after = all.findIndex((match) => match.line >= from);
      this.at.value = by > 0 ? Math.max(0, after) : (after < 0 ? all.length : after) - 1;
      if (this.at.value < 0) this.at.value = all.length - 1;
    } else this.at.value = (this.at.value + by + all.length) % all.length;
    return all[this.at.value]!.line;
  };

  private async go(from: number): Promise<void> {
    this.state.value = "busy";
    const wanted = this.matches.value.length + PAGE;
    let line: number | null = from;
    try {
      for (let round = 0; line !== null && round < ROUNDS_MAX && this.matches.value.length < Math.min(wanted, KEPT_MAX); round++) {
        const where = { attempt: this.attempt, q: this.q, line, count: PAGE };
        const answer = await api.search(this.run, this.name, where, this.stop.signal);
        this.matches.value = [...this.matches.value, ...answer.matches];
        line = answer.next_line ?? null;
      }
      this.next.value = line;
    } catch (cause) {
      if (this.stop.signal.aborted) return;
      if (!(cause instanceof Refused)) throw cause;
      this.said.value = cause.message;
    }
    this.state.value = "done";
  }
}

export function Matches({ found, q, show }: { found: Found; q: string; show: (line: number) => void }) {
  const list = useRef<HTMLOListElement>(null);
  const at = found.at.value;
  useEffect(() => {
    list.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }, [at]);
  const matches = found.matches.value;
  const isDone = found.state.value === "done";
  return (
    <section class="matches" aria-label="What was found">
      <p class="facts" role="status">
        {found.said.value || (matches.length === 0 ? (isDone && found.next.value === null ? "Nothing found." : isDone ? "Nothing found so far." : "Searching …") : `${count(matches.length)}${found.next.value === null ? "" : "+"} ${matches.length === 1 ? "line" : "lines"}`)}
        {found.next.value !== null && isDone && (
          <button type="button" class="quiet" onClick={found.more}>
            Search on
          </button>
        )}
      </p>
      {matches.length > 0 && (
        <ol ref={list}>
          {matches.slice(0, KEPT_MAX).map((match, i) => (
            <li key={match.line} class={i === at ? "current" : ""}>
              <button
                type="button"
                aria-current={i === at ? "true" : undefined}
                onClick={() => {
                  found.at.value = i;
                  show(match.line);
                }}
              >
                <span class="line-number">{match.line}</span>
                <code>
                  {mark([{ text: match.text, style: {} }], q).map((piece, n) => (piece.isMarked ? <mark key={n}>{piece.text}</mark> : piece.text))}
                </code>
              </button>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}
