// One run: what it is, why it failed, its DAG, and the same steps over time.

import { useSignal } from "@preact/signals";
import { api } from "../api/client";
import type { RunDetail } from "../api/types";
import { isOver } from "../api/types";
import { now, say, supports, trying } from "../app";
import { Graph } from "../graph/Graph";
import { Waterfall } from "../graph/Waterfall";
import { moveRow, useKeys } from "../keys";
import { Failures } from "../parts/Failures";
import { stepsOf, useRun } from "../parts/live";
import { Nothing } from "../parts/RunList";
import { person, Ref } from "../parts/RunTable";
import { StatusBadge, word } from "../parts/status";
import { ago, duration, exact } from "../parts/time";
import { useTitle } from "../parts/title";
import { pipelinePath } from "../route";
import { Lost } from "./Lost";

export function RunView({ id }: { id: string }) {
  const live = useRun(id);
  const run = live.run.value;
  useTitle(run ? `${word(run.status)}: ${run.pipeline} #${run.number ?? "…"}` : "Run");
  useKeys(
    () => [
      { keys: "j", what: "Next step", act: () => moveRow(1) },
      { keys: "k", what: "Step before", act: () => moveRow(-1) },
    ],
    [],
  );
  if (live.refused.value?.status === 404) return <Lost what={live.refused.value.message} />;
  if (!run) return <Nothing refused={live.refused.value} />;
  const steps = stepsOf(run);
  return (
    <>
      <RunHead run={run} again={live.again} />
      <Failures run={run} />
      {steps.length > 0 ? (
        <>
          <section aria-labelledby="graph-title">
            <h2 id="graph-title">Steps</h2>
            <Graph run={run.run_id} steps={steps} />
          </section>
          <section aria-labelledby="time-title">
            <h2 id="time-title">Over time</h2>
            <Waterfall run={run} />
          </section>
        </>
      ) : (
        !run.error && <p class="empty">{isOver(run.status) ? "The run has no steps." : "The pipeline file is being read."}</p>
      )}
      <About run={run} />
    </>
  );
}

export function RunHead({ run, again, short }: { run: RunDetail; again: () => void; short?: boolean }) {
  const took = run.started_ms == null ? undefined : (run.ended_ms ?? now.value) - run.started_ms;
  return (
    <div class="head">
      <div class="head-what">
        <p class="crumbs">
          <a href={pipelinePath(run.team, run.pipeline)}>
            {run.team === "default" ? "" : `${run.team}/`}
            {run.pipeline}
          </a>
          <span>#{run.number ?? "…"}</span>
          {run.attempt > 1 && <span class="chip small">attempt {run.attempt}</span>}
        </p>
        {!short && <h1 class="subject">{run.message || run.title || `${run.pipeline} #${run.number ?? "…"}`}</h1>}
        <p class="facts">
          <StatusBadge status={run.status} />
          <Ref run={run} />
          <span title={run.author}>{person(run)}</span>
          <span class="faint">
            {run.event}, <time title={exact(run.created_ms)}>{ago(run.created_ms, now.value)}</time>
          </span>
          {took !== undefined && <span class="faint">{isOver(run.status) ? `took ${duration(took)}` : `for ${duration(took)}`}</span>}
        </p>
      </div>
      <Buttons run={run} again={again} />
    </div>
  );
}

function Buttons({ run, again }: { run: RunDetail; again: () => void }) {
  const isBusy = useSignal(false);
  const doing = (what: () => Promise<string>) => () =>
    trying(async () => {
      isBusy.value = true;
      try {
        say(await what());
        again();
      } finally {
        isBusy.value = false;
      }
    });
  const cancel = doing(async () => (await api.cancel(run.run_id)).message);
  const retry = doing(async () => {
    await api.retry(run.run_id);
    return "What failed is run again.";
  });
  return (
    <div class="buttons">
      {!isOver(run.status) && (
        <button type="button" class="danger" disabled={isBusy.value || run.cancel_requested} onClick={() => void cancel()}>
          {run.cancel_requested ? "Is being cancelled" : "Cancel run"}
        </button>
      )}
      {isOver(run.status) && run.status !== "success" && supports("POST /runs/{run_id}/retry") && (
        <button type="button" disabled={isBusy.value} onClick={() => void retry()}>
          Run what failed again
        </button>
      )}
    </div>
  );
}

function About({ run }: { run: RunDetail }) {
  const variables = Object.entries(run.variables);
  return (
    <section class="about">
      <h2>About</h2>
      <dl class="pairs">
        <div>
          <dt>repository</dt>
          <dd>
            <code class="where">{run.repository || "–"}</code>
          </dd>
        </div>
        <div>
          <dt>commit</dt>
          <dd>
            <code>{run.commit || "–"}</code>
          </dd>
        </div>
        <div>
          <dt>requested by</dt>
          <dd>{run.requested_by}</dd>
        </div>
        <div>
          <dt>run</dt>
          <dd>
            <code>{run.run_id}</code>
          </dd>
        </div>
        {variables.map(([key, value]) => (
          <div key={key}>
            <dt>
              <code>{key}</code>
            </dt>
            <dd>
              <code class="where">{value}</code>
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
