// Every pipeline and how its newest run stands.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, Refused } from "../api/client";
import type { Pipeline, RunSummary } from "../api/types";
import { now } from "../app";
import { moveRow, useKeys } from "../keys";
import { usePoll } from "../parts/poll";
import { Nothing } from "../parts/RunList";
import { StatusIcon } from "../parts/status";
import { ago, exact } from "../parts/time";
import { useTitle } from "../parts/title";
import { pipelinePath, runPath } from "../route";

/** How often the list is asked for, milliseconds. */
const PERIOD_MS = 5_000;

export function Pipelines() {
  useTitle("Pipelines");
  const polled = usePoll(() => api.pipelines(), PERIOD_MS, []);
  useKeys(
    () => [
      { keys: "j", what: "Next pipeline", act: () => moveRow(1) },
      { keys: "k", what: "Pipeline before", act: () => moveRow(-1) },
    ],
    [],
  );
  const page = polled.data.value;
  if (!page) return <Nothing refused={polled.refused.value} />;
  return (
    <>
      <h1>Pipelines</h1>
      {page.pipelines.length === 0 && (
        <p class="empty">
          None yet: <code>buildflow pipeline create</code> registers one.
        </p>
      )}
      <table class="pipelines">
        <caption class="unseen">Pipelines</caption>
        <thead>
          <tr>
            <th scope="col">Pipeline</th>
            <th scope="col">Newest run</th>
            <th scope="col" class="wide">
              Repository
            </th>
          </tr>
        </thead>
        <tbody>
          {page.pipelines.map((pipeline) => (
            <tr key={`${pipeline.team}/${pipeline.name}`}>
              <td>
                <a data-row href={pipelinePath(pipeline.team, pipeline.name)}>
                  {pipeline.team === "default" ? "" : <span class="faint">{pipeline.team}/</span>}
                  <b>{pipeline.name}</b>
                </a>
              </td>
              <td>
                <Newest pipeline={pipeline} />
              </td>
              <td class="wide">
                <code class="where">{pipeline.repository}</code>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

/** The list itself knows of runs that go on or ended just now; older ones are asked for. */
function Newest({ pipeline }: { pipeline: Pipeline }) {
  const older = useSignal<RunSummary | null | undefined>(undefined);
  const isUnknown = pipeline.last_run == null;
  useEffect(() => {
    if (!isUnknown) return;
    api.pipelineRuns(pipeline.team, pipeline.name, { limit: 1 }).then(
      (page) => (older.value = page.runs[0] ?? null),
      (cause: unknown) => {
        if (!(cause instanceof Refused)) throw cause;
      },
    );
  }, [isUnknown]);
  const run = pipeline.last_run ?? older.value;
  if (!run) return <span class="faint">{run === null ? "none yet" : ""}</span>;
  return (
    <a class="last-run" href={runPath(run.run_id)}>
      <StatusIcon status={run.status} />
      <span>#{run.number ?? "…"}</span>
      <span class="subject">{run.message}</span>
      <time class="faint" title={exact(run.created_ms)}>
        {ago(run.created_ms, now.value)}
      </time>
    </a>
  );
}
