// Why a run failed: for each step that ended badly the server's sentence, and the first line of its
// log that looks like an error.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, Refused } from "../api/client";
import type { RunDetail, StepDetail } from "../api/types";
import { isBad } from "../api/types";
import { plain } from "../log/ansi";
import { firstError, lastWords } from "../log/failure";
import { stepPath } from "../route";
import { stepsOf } from "./live";
import { StatusIcon } from "./status";

/** How many failed steps are explained; the others are in the list below. */
const SHOWN_MAX = 5;

/** How much of a log's end is looked through. */
const LOOKED_AT = 1_500;

export function Failures({ run }: { run: RunDetail }) {
  const bad = stepsOf(run).filter((step) => isBad(step.status));
  const counted = [...bad.filter((s) => !s.allow_failure), ...bad.filter((s) => s.allow_failure)];
  if (run.error) {
    return (
      <section class="failures" aria-label="What went wrong">
        <p class="sentence">
          <StatusIcon status="failed" bare /> {capital(run.error)}
        </p>
        {run.findings.length > 0 && (
          <ul class="findings">
            {run.findings.map((finding) => (
              <li key={finding}>
                <code>{finding}</code>
              </li>
            ))}
          </ul>
        )}
      </section>
    );
  }
  if (counted.length === 0) return null;
  return (
    <section class="failures" aria-label="What went wrong">
      {counted.slice(0, SHOWN_MAX).map((step) => (
        <Failure key={`${step.name} ${step.attempt} ${step.log_bytes ?? ""}`} run={run.run_id} step={step} />
      ))}
      {counted.length > SHOWN_MAX && <p class="faint">and {counted.length - SHOWN_MAX} more</p>}
    </section>
  );
}

function Failure({ run, step }: { run: string; step: StepDetail }) {
  const guess = useFirstError(run, step);
  return (
    <div class="failure">
      <p class="sentence">
        <StatusIcon status={step.status} bare />
        <span>
          <a href={stepPath(run, step.name)}>{step.name}</a>
          {step.allow_failure ? " (may fail)" : ""}: {step.reason ?? "ended badly"}
        </span>
      </p>
      {guess && (
        <a class="error-line" href={stepPath(run, step.name, { lines: { from: guess.line, to: guess.line } })}>
          <span class="line-number">{guess.line}</span>
          <code>{guess.text}</code>
        </a>
      )}
    </div>
  );
}

/** The first line near the end of a step's log that looks like an error, or its last words. */
export function useFirstError(run: string, step: StepDetail): { line: number; text: string } | undefined {
  const found = useSignal<{ line: number; text: string } | undefined>(undefined);
  const key = `${run} ${step.name} ${step.attempt} ${step.log_bytes ?? "?"} ${isBad(step.status)}`;
  useEffect(() => {
    found.value = undefined;
    if (!isBad(step.status) || step.attempt === 0) return;
    const stop = new AbortController();
    look(run, step, stop.signal).then(
      (line) => {
        if (!stop.signal.aborted) found.value = line;
      },
      (cause: unknown) => {
        if (!(cause instanceof Refused) && !stop.signal.aborted) throw cause;
      },
    );
    return () => stop.abort();
  }, [key]);
  return found.value;
}

async function look(run: string, step: StepDetail, stop: AbortSignal): Promise<{ line: number; text: string } | undefined> {
  const ask = (line: number, count: number) => api.lines(run, step.name, { attempt: step.attempt, line, count }, stop);
  const size = await ask(1, 0);
  // What failed stands in the last entry that began.
  const begun = size.sections.at(-1)?.line ?? 0;
  const from = Math.max(1, begun + 1, size.total_lines - LOOKED_AT + 1);
  if (from > size.total_lines) return undefined;
  const lines: string[] = [];
  while (lines.length < size.total_lines - from + 1) {
    const answer = await ask(from + lines.length, size.total_lines - from + 1 - lines.length);
    if (answer.lines.length === 0) break;
    lines.push(...answer.lines);
  }
  const at = firstError(lines) ?? lastWords(lines);
  return at === undefined ? undefined : { line: from + at, text: plain(lines[at]!).trim().slice(0, 300) };
}

function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
