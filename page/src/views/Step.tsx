// One step: how it stands and why, and its log.

import { useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { rawLog, type Refused } from "../api/client";
import type { Link } from "../api/stream";
import type { RunDetail, StepDetail } from "../api/types";
import { isBad, isOver } from "../api/types";
import { go, isOffline, now, say, supports, trying } from "../app";
import { api } from "../api/client";
import { useKeys } from "../keys";
import { Rows } from "../log/folds";
import { Matches, useSearch } from "../log/Search";
import { LogStore } from "../log/store";
import { Viewer, type Reader } from "../log/Viewer";
import { Explain } from "../parts/Explain";
import { useFirstError } from "../parts/Failures";
import { stepsOf, useRun } from "../parts/live";
import { Nothing } from "../parts/RunList";
import { StatusBadge, StatusIcon, word } from "../parts/status";
import { bytes, count, duration } from "../parts/time";
import { useTitle } from "../parts/title";
import { hashOf, nodePath, runPath, stepPath, type Lines } from "../route";
import { Lost } from "./Lost";

interface Props {
  run: string;
  step: string;
  attempt?: number;
  q?: string;
  lines?: Lines;
}

export function StepView(props: Props) {
  const live = useRun(props.run);
  const run = live.run.value;
  const steps = run ? stepsOf(run) : [];
  const step = steps.find((s) => s.name === props.step);
  useTitle(step && run ? `${word(step.status)}: ${step.name} · ${run.pipeline} #${run.number ?? "…"}` : props.step);
  const to = (by: number) => {
    const at = steps.findIndex((s) => s.name === props.step);
    const next = steps[at + by];
    if (next) go(stepPath(props.run, next.name));
  };
  useKeys(
    () => [
      { keys: "j", what: "Next step", act: () => to(1) },
      { keys: "k", what: "Step before", act: () => to(-1) },
      { keys: "u", what: "Up to the run", act: () => go(runPath(props.run)) },
    ],
    [steps.length, props.step],
  );
  if (live.refused.value?.status === 404) return <Lost what={live.refused.value.message} />;
  if (!run) return <Nothing refused={live.refused.value} />;
  if (!step) {
    return steps.length === 0 && !isOver(run.status) ? <p class="empty">The pipeline file is being read.</p> : <Lost what={`The run has no step “${props.step}”.`} />;
  }
  const attempt = props.attempt ?? Math.max(1, step.attempt);
  return (
    <div class="step-layout">
      <Steps run={run} current={step.name} />
      <div class="step-main">
        <StepHead run={run} step={step} attempt={attempt} again={live.again} />
        {!isOver(step.status) && step.status !== "running" && attempt >= step.attempt && <Explain run={run.run_id} step={step} />}
        <Log key={`${step.name} ${attempt}`} {...props} detail={step} shown={attempt} />
      </div>
    </div>
  );
}

function Steps({ run, current }: { run: RunDetail; current: string }) {
  return (
    <nav class="steps" aria-label="Steps of the run">
      <p class="crumbs">
        <a href={runPath(run.run_id)}>
          <StatusIcon status={run.status} /> {run.pipeline} #{run.number ?? "…"}
        </a>
      </p>
      {run.stages.map((stage) => (
        <section key={stage.name}>
          <h3>{stage.name}</h3>
          <ul>
            {stage.steps.map((step) => (
              <li key={step.name}>
                <a href={stepPath(run.run_id, step.name)} aria-current={step.name === current ? "page" : undefined} data-step={step.name} data-status={step.status}>
                  <StatusIcon status={step.status} />
                  <span>{step.name}</span>
                  {step.times.started_ms != null && <small>{duration((step.times.ended_ms ?? now.value) - step.times.started_ms)}</small>}
                </a>
              </li>
            ))}
          </ul>
        </section>
      ))}
    </nav>
  );
}

function StepHead({ run, step, attempt, again }: { run: RunDetail; step: StepDetail; attempt: number; again: () => void }) {
  const tried = step.attempts.find((a) => a.attempt === attempt);
  const isNewest = attempt >= step.attempt;
  const times = isNewest ? step.times : tried?.times;
  const reason = isNewest ? step.reason : tried?.reason;
  const node = (isNewest ? (step.node_name ?? step.node) : (tried?.node_name ?? tried?.node)) ?? undefined;
  const usage = isNewest ? step.use : tried?.use;
  const took = times?.started_ms == null ? undefined : (times.ended_ms ?? now.value) - times.started_ms;
  return (
    <header class="step-head">
      <div class="step-title">
        <h1>{step.title ?? step.name}</h1>
        {isNewest ? <StatusBadge status={step.status} {...(step.allow_failure && isBad(step.status) ? { note: "may fail" } : {})} /> : <span class="badge">try {attempt}</span>}
        {step.attempts.length > 1 && <Attempts run={run.run_id} step={step} attempt={attempt} />}
        <StepButtons run={run} step={step} again={again} />
      </div>
      {reason && <p class={`sentence${isNewest && isBad(step.status) ? " bad" : ""}`}>{reason.slice(0, 1).toUpperCase() + reason.slice(1)}</p>}
      <p class="facts">
        {took !== undefined && <span>{times?.ended_ms != null ? `took ${duration(took)}` : `for ${duration(took)}`}</span>}
        {node && (
          <span>
            on <a href={nodePath(node)}>{node}</a>
          </span>
        )}
        <code class="where">{step.image}</code>
        {usage && <span class="faint">{`${bytes(usage.memory_peak_bytes)} at most, ${duration(usage.cpu_ms)} of CPU`}</span>}
        {isNewest && step.phases.length > 0 && (
          <span class="faint" title={step.phases.map((p) => `${p.name} ${duration(p.ms)}`).join("\n")}>
            {`ready after ${duration(step.phases.reduce((sum, p) => sum + p.ms, 0))}`}
          </span>
        )}
      </p>
    </header>
  );
}

function Attempts({ run, step, attempt }: { run: string; step: StepDetail; attempt: number }) {
  return (
    <label class="attempts">
      <span class="unseen">Try</span>
      <select
        value={String(attempt)}
        onChange={(event) => {
          const chosen = Number(event.currentTarget.value);
          go(stepPath(run, step.name, chosen === step.attempt ? {} : { attempt: chosen }));
        }}
      >
        {step.attempts.map((a) => (
          <option key={a.attempt} value={a.attempt}>
            try {a.attempt}
            {a.attempt === step.attempt ? ", the newest" : ""}
          </option>
        ))}
      </select>
    </label>
  );
}

function StepButtons({ run, step, again }: { run: RunDetail; step: StepDetail; again: () => void }) {
  if (!isBad(step.status) || !supports("POST /runs/{run_id}/steps/{step}/retry")) return null;
  const retry = () =>
    trying(async () => {
      await api.retry(run.run_id, step.name);
      say("The step is run again.");
      again();
    });
  return (
    <button type="button" onClick={() => void retry()}>
      Run again
    </button>
  );
}

/** The log of one attempt: made anew for another one. */
function Log({ run, step, attempt, q = "", lines, detail, shown }: Props & { detail: StepDetail; shown: number }) {
  const version = useSignal(0);
  const link = useSignal<Link>("connecting");
  const refused = useSignal<Refused | undefined>(undefined);
  const folded = useSignal<ReadonlySet<number>>(new Set());
  const follow = useSignal({ is: false, missed: 0 });
  const reader = useRef<Reader | undefined>(undefined);
  const field = useRef<HTMLInputElement>(null);
  const store = useMemo(() => {
    let frame = 0;
    return new LogStore(run, step, attempt, {
      changed: () => {
        refused.value = undefined;
        // However often bytes come, once for each picture on the screen; a hidden page draws none.
        if (frame !== 0) return;
        frame = (document.hidden ? (f: () => void) => window.setTimeout(f, 250) : requestAnimationFrame)(() => {
          frame = 0;
          version.value++;
        }) as number;
      },
      link: (state) => {
        link.value = state;
        if (state === "live") isOffline.value = false;
      },
      failed: (cause) => {
        refused.value = cause;
        isOffline.value = cause.isOffline;
      },
    });
  }, []);
  useEffect(() => {
    void store.open();
    return () => store.close();
  }, []);

  const number = version.value;
  const rows = useMemo(() => new Rows(store.total, store.sections, folded.value), [store.total, store.sections, folded.value]);
  const error = useFirstError(run, detail);
  const found = useSearch(run, step, attempt, q);
  const show = (line: number) => {
    unfold(line);
    // After the rows are there.
    requestAnimationFrame(() => reader.current?.show(line));
  };
  const unfold = (line: number) => {
    const section = [...store.sections].reverse().find((s) => s.line < line);
    if (section && folded.value.has(section.line)) fold(section.line);
  };
  const fold = (line: number) => {
    const next = new Set(folded.value);
    if (!next.delete(line)) next.add(line);
    folded.value = next;
  };
  const foldAll = () => {
    folded.value = folded.value.size > 0 ? new Set() : new Set(store.sections.map((s) => s.line));
  };
  const search = (text: string) => go(stepPath(run, step, { ...(attempt ? { attempt } : {}), ...(text ? { q: text } : {}), ...(lines ? { lines } : {}) }), "replace");
  const choose = (chosen: Lines) => go(location.pathname + location.search + hashOf(chosen), "replace");
  const walk = (by: number) => {
    const line = found.step(by, reader.current?.first() ?? 1);
    if (line !== undefined) show(line);
  };
  const section = (by: number) => {
    const first = reader.current?.first() ?? 1;
    const all = store.sections;
    const next = by > 0 ? all.find((s) => s.line > first + 2) : [...all].reverse().find((s) => s.line < first);
    if (next) show(next.line);
  };

  // Where one begins: the line of the address, the error, or the end of what goes on.
  const isPlaced = useRef(false);
  useEffect(() => {
    if (isPlaced.current || !store.isOpen) return;
    const isWaitingForError = isBad(detail.status) && !attempt && store.total > 0 && !lines && !error;
    if (lines) show(lines.from);
    else if (!isOver(detail.status)) reader.current?.toEnd();
    else if (error) show(error.line);
    isPlaced.current = !isWaitingForError;
  }, [store.isOpen, error?.line]);
  // Another line in the address.
  const chosenKey = lines ? hashOf(lines) : "";
  const firstKey = useRef(chosenKey);
  useEffect(() => {
    if (chosenKey !== firstKey.current && lines) show(lines.from);
    firstKey.current = chosenKey;
  }, [chosenKey]);

  useKeys(
    () => [
      { keys: "/", what: "Search in the log", act: () => field.current?.select() },
      { keys: "n", what: "Next match", act: () => walk(1) },
      { keys: "N", what: "Match before", act: () => walk(-1) },
      { keys: "Escape", what: "End the search", act: () => (q ? search("") : (document.activeElement as HTMLElement | null)?.blur()) },
      { keys: "e", what: "First error", act: () => error && show(error.line) },
      { keys: "]", what: "Next section", act: () => section(1) },
      { keys: "[", what: "Section before", act: () => section(-1) },
      { keys: "z", what: "Fold or unfold all sections", act: foldAll },
      { keys: "g g", what: "To the beginning", act: () => reader.current?.toStart() },
      { keys: "G", what: "To the end, and stay there", act: () => reader.current?.toEnd() },
    ],
    [q, error?.line, attempt, lines?.from],
  );

  const raw = attempt ? { attempt } : {};
  return (
    <section class="log-frame" aria-label="Log">
      <div class="toolbar" role="toolbar" aria-label="Log">
        <form
          role="search"
          onSubmit={(event) => {
            event.preventDefault();
            const text = field.current?.value ?? "";
            if (text === q) walk(1);
            else search(text);
          }}
        >
          <input ref={field} key={q} type="search" defaultValue={q} placeholder="Search in the log  ( / )" aria-label="Search in the log" maxLength={400} onInput={(e) => e.currentTarget.value === "" && q && search("")} />
        </form>
        {error && (
          <button type="button" class="to-error" onClick={() => show(error.line)} title="e">
            First error: line {count(error.line)}
          </button>
        )}
        <span class="spread" />
        <LogState store={store} link={link.value} status={detail.status} />
        {store.sections.length > 0 && (
          <button type="button" class="quiet" onClick={foldAll} title="z">
            {folded.value.size > 0 ? "Unfold" : "Fold"}
          </button>
        )}
        <a class="button quiet" href={rawLog(run, step, raw)} download={`${step}.log`}>
          Download
        </a>
      </div>
      {q && <Matches found={found} q={q} show={show} />}
      <div class="log-holder">
        <Viewer
          store={store}
          version={number}
          rows={rows}
          sections={store.sections}
          folded={folded.value}
          fold={fold}
          needle={q}
          chosen={lines}
          choose={choose}
          label={`Log of ${step}, try ${shown}`}
          rawLine={(line) => rawLog(run, step, { ...raw, line, count: 1 })}
          following={(is, missed) => {
            if (is !== follow.peek().is || missed !== follow.peek().missed) follow.value = { is, missed };
          }}
          reader={reader}
        />
        {store.isOpen && store.total === 0 && <p class="empty over">{emptyWords(detail, store)}</p>}
        {refused.value && !store.isOpen && <p class="empty over">{refused.value.message}</p>}
        {!follow.value.is && store.isOpen && !store.isOver && follow.value.missed > 0 && (
          <button type="button" class="to-end" onClick={() => reader.current?.toEnd()}>
            {count(follow.value.missed)} new {follow.value.missed === 1 ? "line" : "lines"} ↓
          </button>
        )}
      </div>
    </section>
  );
}

function emptyWords(step: StepDetail, store: LogStore): string {
  if (step.status === "skipped") return "The step was skipped: it has no log.";
  if (isOver(step.status) && store.isOver) return "The step printed nothing.";
  return step.status === "running" ? "Nothing printed yet." : "The log begins with the step.";
}

function LogState({ store, link, status }: { store: LogStore; link: Link; status: StepDetail["status"] }) {
  const words = !store.isOpen ? "" : store.lost ? "the rest was lost with its node" : store.isOver || store.attempt === 0 ? "" : link === "live" ? (isOver(status) ? "the rest is coming" : "live") : "connecting";
  return (
    <span class="log-state" role="status">
      {words && <span class={`dot ${link === "live" ? "on" : "off"}`}>{words}</span>}
      {store.isOpen && store.attempt > 0 && <span class="faint">{`${count(store.total)} ${store.total === 1 ? "line" : "lines"}`}</span>}
    </span>
  );
}
