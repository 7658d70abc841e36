// A list of runs: how each stands, what it is, who caused it and how long it took.

import type { RunSummary } from "../api/types";
import { isOver } from "../api/types";
import { now } from "../app";
import { runPath } from "../route";
import { StatusIcon, word } from "./status";
import { ago, duration, exact } from "./time";

export function RunTable({ runs, isOfOne }: { runs: RunSummary[]; isOfOne?: boolean }) {
  return (
    <table class="runs">
      <caption class="unseen">Runs, newest first</caption>
      <thead>
        <tr>
          <th scope="col">Run</th>
          <th scope="col">Commit</th>
          <th scope="col" class="wide">
            By
          </th>
          <th scope="col" class="number">
            Took
          </th>
          <th scope="col" class="number">
            Began
          </th>
        </tr>
      </thead>
      <tbody>
        {runs.map((run) => (
          <Row key={run.run_id} run={run} isOfOne={isOfOne ?? false} />
        ))}
      </tbody>
    </table>
  );
}

function Row({ run, isOfOne }: { run: RunSummary; isOfOne: boolean }) {
  const took = run.started_ms == null ? undefined : (run.ended_ms ?? now.value) - run.started_ms;
  const subject = run.message || run.error || (run.number == null ? "The pipeline file is being read" : "");
  return (
    <tr data-run={run.run_id} data-status={run.status}>
      <td>
        <div class="run-cell">
          <StatusIcon status={run.status} />
          <a data-row href={runPath(run.run_id)} class="run-link">
            <span class="run-name">
              {isOfOne ? "" : run.team === "default" ? run.pipeline : `${run.team}/${run.pipeline}`}
              <span class="run-number">{run.number == null ? "" : ` #${run.number}`}</span>
            </span>
            <span class="subject">{subject}</span>
          </a>
        </div>
      </td>
      <td class="commit">
        <Ref run={run} />
      </td>
      <td class="wide by">
        <span title={run.author}>{person(run)}</span>
        <small>{run.event}</small>
      </td>
      <td class="number">{took === undefined ? <span class="faint">{isOver(run.status) ? "–" : word(run.status)}</span> : duration(took)}</td>
      <td class="number">
        <time dateTime={new Date(run.created_ms).toISOString()} title={exact(run.created_ms)}>
          {ago(run.created_ms, now.value)}
        </time>
      </td>
    </tr>
  );
}

/** The author's name without his address, or the name of the token that asked for the run. */
export function person(run: RunSummary): string {
  return run.author.replace(/\s*<[^>]*>\s*$/, "") || run.author || run.requested_by;
}

export function Ref({ run }: { run: RunSummary }) {
  return (
    <>
      {run.branch != null && <span class="chip">{run.branch}</span>}
      {run.tag != null && <span class="chip tag">{run.tag}</span>}
      {run.branch == null && run.tag == null && run.ref !== "" && <span class="chip">{run.ref}</span>}
      {run.commit && <code class="sha">{run.commit.slice(0, 8)}</code>}
    </>
  );
}
