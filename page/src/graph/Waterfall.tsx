// The same steps over time: when each waited, was made ready, and ran.

import type { RunDetail, StageDetail, StepDetail } from "../api/types";
import { isOver } from "../api/types";
import { now } from "../app";
import { StatusIcon, word } from "../parts/status";
import { duration } from "../parts/time";
import { stepPath } from "../route";
import { ticks } from "./scale";

export function Waterfall({ run }: { run: RunDetail }) {
  const steps = run.stages.flatMap((stage) => stage.steps);
  const from = Math.min(...steps.map(begin).filter((t) => t !== undefined), run.created_ms);
  const to = Math.max(from + 1_000, ...steps.map((s) => end(s) ?? from));
  const at = (ms: number) => `${(100 * (ms - from)) / (to - from)}%`;
  const marks = ticks(to - from);
  return (
    <div class="waterfall">
      <div class="scale" aria-hidden="true">
        {marks.map((ms) => (
          <span key={ms} style={{ left: at(from + ms) }}>
            {ms === 0 ? "0" : duration(ms)}
          </span>
        ))}
      </div>
      <ol>
        {run.stages.map((stage) => (
          <Stage key={stage.name} run={run.run_id} stage={stage} at={at} marks={marks.map((ms) => at(from + ms))} />
        ))}
      </ol>
    </div>
  );
}

function Stage({ run, stage, at, marks }: { run: string; stage: StageDetail; at: (ms: number) => string; marks: string[] }) {
  return (
    <li>
      <h3>{stage.name}</h3>
      <ol>
        {stage.steps.map((step) => (
          <li key={step.name} class={`fall status-${step.status}`} data-step={step.name} data-status={step.status}>
            <a data-row class="fall-name" href={stepPath(run, step.name)} title={step.title ?? step.name}>
              <StatusIcon status={step.status} />
              <span>{step.name}</span>
              {step.attempt > 1 && <small class="chip small">try {step.attempt}</small>}
            </a>
            <span class="fall-time">{words(step)}</span>
            <span class="fall-track">
              {marks.map((mark) => (
                <i key={mark} class="mark" style={{ left: mark }} />
              ))}
              {parts(step).map((part) => (
                <i
                  key={part.what}
                  class={`part ${part.what}`}
                  style={{ left: at(part.from), width: `calc(${at(part.to)} - ${at(part.from)})` }}
                  title={`${part.words} ${duration(part.to - part.from)}`}
                />
              ))}
            </span>
          </li>
        ))}
      </ol>
    </li>
  );
}

interface Part {
  what: "waits" | "prepares" | "runs";
  words: string;
  from: number;
  to: number;
}

function parts(step: StepDetail): Part[] {
  const { queued_ms, assigned_ms, started_ms, ended_ms } = step.times;
  const last = ended_ms ?? (isOver(step.status) ? (started_ms ?? assigned_ms ?? queued_ms) : now.value);
  const found: Part[] = [];
  const add = (what: Part["what"], words: string, from: number | null | undefined, to: number | null | undefined) => {
    const until = to ?? last;
    if (from != null && until != null && until >= from) found.push({ what, words, from, to: until });
  };
  add("waits", "waited", queued_ms, assigned_ms);
  if (assigned_ms != null) add("prepares", "made ready", assigned_ms, started_ms);
  if (started_ms != null) add("runs", "ran", started_ms, ended_ms);
  return found;
}

function begin(step: StepDetail): number | undefined {
  return step.times.queued_ms ?? step.times.assigned_ms ?? step.times.started_ms ?? undefined;
}

function end(step: StepDetail): number | undefined {
  if (step.times.ended_ms != null) return step.times.ended_ms;
  return begin(step) === undefined || isOver(step.status) ? undefined : now.value;
}

function words(step: StepDetail): string {
  const { started_ms, ended_ms } = step.times;
  if (started_ms == null) return word(step.status);
  return duration((ended_ms ?? (isOver(step.status) ? started_ms : now.value)) - started_ms);
}
