// A run as it changes: read whole, then told of every change, and read anew after each, for the
// times stand in no event. Not here: logs.

import { signal, type Signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { api, BASE, Refused } from "../api/client";
import { Stream, type Link } from "../api/stream";
import { isOver, type RunChanged, type RunDetail, type StepChanged, type StepDetail } from "../api/types";
import { isOffline } from "../app";

/** Changes that come together are read together. */
const TOGETHER_MS = 250;

export interface LiveRun {
  run: Signal<RunDetail | undefined>;
  link: Signal<Link>;
  refused: Signal<Refused | undefined>;
  again: () => void;
}

export function useRun(id: string): LiveRun {
  const live = useMemo(() => new Follower(id), [id]);
  useEffect(() => {
    live.begin();
    return () => live.end();
  }, [live]);
  return live;
}

class Follower implements LiveRun {
  readonly run = signal<RunDetail | undefined>(undefined);
  readonly link = signal<Link>("connecting");
  readonly refused = signal<Refused | undefined>(undefined);
  private stream: Stream | undefined;
  private timer: number | undefined;
  private isEnded = false;

  constructor(private readonly id: string) {}

  begin(): void {
    this.isEnded = false;
    this.stream = new Stream(["snapshot", "step", "run", "end"], {
      // Every time from a fresh snapshot: it is one message, and nothing can be missed.
      address: () => `${BASE}/runs/${encodeURIComponent(this.id)}/events`,
      event: (kind, data) => this.event(kind, data),
      link: (state) => {
        this.link.value = state;
        if (state === "live") isOffline.value = false;
      },
      refused: () => this.read(),
    });
  }

  end(): void {
    this.isEnded = true;
    this.stream?.close();
    window.clearTimeout(this.timer);
  }

  readonly again = (): void => void this.read();

  private event(kind: string, data: string): void {
    switch (kind) {
      case "snapshot":
        this.show(JSON.parse(data) as RunDetail);
        return;
      case "step":
        this.change(JSON.parse(data) as StepChanged);
        this.soon();
        return;
      case "run":
      case "end": {
        const { status } = JSON.parse(data) as RunChanged;
        if (this.run.value) this.run.value = { ...this.run.value, status };
        if (kind === "end") this.stream?.close();
        this.soon();
      }
    }
  }

  private change(change: StepChanged): void {
    const run = this.run.value;
    if (!run) return;
    const changed = (step: StepDetail): StepDetail => {
      if (step.ordinal !== change.ordinal) return step;
      const { status, attempt, node, reason, log_bytes } = change;
      return { ...step, status, attempt, node: node ?? null, reason: reason ?? null, log_bytes: log_bytes ?? null };
    };
    this.run.value = { ...run, stages: run.stages.map((stage) => ({ ...stage, steps: stage.steps.map(changed) })) };
  }

  private soon(): void {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.read(), TOGETHER_MS);
  }

  /** Reads the run; answers whether there may be more of it. */
  private async read(): Promise<boolean> {
    try {
      const run = await api.run(this.id);
      if (this.isEnded) return false;
      this.show(run);
      isOffline.value = false;
      return !isOver(run.status);
    } catch (cause) {
      if (!(cause instanceof Refused)) throw cause;
      if (this.isEnded) return false;
      if (!this.run.value) this.refused.value = cause;
      isOffline.value = cause.isOffline;
      return cause.isOffline || cause.status >= 500 || cause.status === 429;
    }
  }

  private show(run: RunDetail): void {
    this.run.value = run;
    this.refused.value = undefined;
  }
}

export function stepsOf(run: RunDetail): StepDetail[] {
  return run.stages.flatMap((stage) => stage.steps);
}
