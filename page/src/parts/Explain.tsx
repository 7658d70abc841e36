// Why a step waits, or is where it is: the scheduler's own words.

import { useSignal } from "@preact/signals";
import { api } from "../api/client";
import type { StepDetail } from "../api/types";
import { nodePath, stepPath } from "../route";
import { usePoll } from "./poll";
import { bytes, cores } from "./time";

/** How often a waiting step is explained anew, milliseconds. */
const PERIOD_MS = 2_000;

export function Explain({ run, step }: { run: string; step: StepDetail }) {
  const polled = usePoll(() => api.explain(run, step.name), PERIOD_MS, [run, step.name, step.status]);
  const isOpen = useSignal(false);
  const said = polled.data.value;
  if (!said) return null;
  return (
    <section class="explain" aria-label="Why it waits">
      <p class="sentence">
        <b>{step.name}</b> {said.summary}
      </p>
      {said.waits_for.length > 0 && (
        <p class="facts">
          Needs{" "}
          {said.waits_for.map((name, i) => (
            <>
              {i > 0 && ", "}
              <a href={stepPath(run, name)}>{name}</a>
            </>
          ))}
        </p>
      )}
      <p class="facts">
        Asks for {cores(said.resources.cpu_millis)}, {bytes(said.resources.memory_bytes)} of memory,{" "}
        {bytes(said.resources.disk_bytes)} of disk
        {Object.entries(said.labels).map(([key, value]) => (
          <span class="chip small" key={key}>
            {key}={value}
          </span>
        ))}
      </p>
      {said.nodes.length > 0 && (
        <details open={isOpen.value || said.nodes.length <= 4} onToggle={(e) => (isOpen.value = e.currentTarget.open)}>
          <summary>What speaks against each node</summary>
          <ul class="verdicts">
            {said.nodes.slice(0, 100).map((node) => (
              <li key={node.node}>
                <a href={nodePath(node.node)}>{node.name}</a> <span class={node.feasible ? "" : "faint"}>{node.reason}</span>
              </li>
            ))}
          </ul>
        </details>
      )}
    </section>
  );
}
