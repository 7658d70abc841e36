// A narrowed list of runs that is kept up to date, and longer on request.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, Refused, type RunQuery } from "../api/client";
import type { RunList as Page, RunSummary } from "../api/types";
import { trying } from "../app";
import { moveRow, useKeys } from "../keys";
import type { Filters } from "../route";
import { usePoll } from "./poll";
import { RunTable } from "./RunTable";

/** How often the list is asked for, milliseconds. */
const PERIOD_MS = 2_500;

/** Runs of one page. */
const PAGE = 50;

/** How many pages are asked for until one has something: a filter may skip many runs. */
const PAGES_MAX = 8;

export function RunList({ filters, of, isOfOne }: { filters: Filters; of?: { team: string; pipeline: string }; isOfOne?: boolean }) {
  const [team, pipeline] = of ? [of.team, of.pipeline] : (filters.pipeline ?? "").split("/", 2);
  const query: RunQuery = { status: filters.status, branch: filters.branch, person: filters.person };
  const ask = (cursor: string | undefined, signal?: AbortSignal): Promise<Page> => {
    const whole = { ...query, cursor, limit: PAGE };
    return team && pipeline ? api.pipelineRuns(team, pipeline, whole, signal) : api.runs(whole, signal);
  };
  const inputs = [team, pipeline, filters.status, filters.branch, filters.person];
  const polled = usePoll((signal) => filled(ask, undefined, signal), PERIOD_MS, inputs);
  const older = useSignal<RunSummary[]>([]);
  const cursor = useSignal<string | null | undefined>(undefined);
  const isBusy = useSignal(false);
  useEffect(() => {
    older.value = [];
    cursor.value = undefined;
  }, inputs);
  useKeys(
    () => [
      { keys: "j", what: "Next run", act: () => moveRow(1) },
      { keys: "k", what: "Run before", act: () => moveRow(-1) },
    ],
    [],
  );

  const page = polled.data.value;
  if (!page) return <Nothing refused={polled.refused.value} />;
  const newest = new Set(page.runs.map((run) => run.run_id));
  const runs = [...page.runs, ...older.value.filter((run) => !newest.has(run.run_id))];
  const next = cursor.value === undefined ? page.next_cursor : cursor.value;
  const more = () =>
    trying(async () => {
      isBusy.value = true;
      try {
        const answer = await filled(ask, next ?? undefined);
        older.value = [...runs.filter((run) => !newest.has(run.run_id)), ...page.runs, ...answer.runs];
        cursor.value = answer.next_cursor ?? null;
      } finally {
        isBusy.value = false;
      }
    });
  return (
    <>
      {page.warning && (
        <p class="warning" role="status">
          {page.warning}
        </p>
      )}
      {runs.length === 0 ? <p class="empty">No run is like that.</p> : <RunTable runs={sorted(runs)} isOfOne={isOfOne ?? false} />}
      {next && (
        <p class="more">
          <button type="button" disabled={isBusy.value} onClick={() => void more()}>
            Older runs
          </button>
        </p>
      )}
    </>
  );
}

/** Newest first: ids grow with time. */
function sorted(runs: RunSummary[]): RunSummary[] {
  return [...runs].sort((a, b) => b.created_ms - a.created_ms || (a.run_id < b.run_id ? 1 : -1));
}

async function filled(ask: (cursor: string | undefined, signal?: AbortSignal) => Promise<Page>, from: string | undefined, signal?: AbortSignal): Promise<Page> {
  let page = await ask(from, signal);
  for (let n = 1; n < PAGES_MAX && page.runs.length === 0 && page.next_cursor; n++) page = await ask(page.next_cursor, signal);
  return page;
}

export function Nothing({ refused }: { refused: Refused | undefined }) {
  if (!refused) return <p class="empty" aria-busy="true" />;
  return (
    <p class="empty" role="alert">
      {refused.message}
    </p>
  );
}
