// A run's DAG: its steps as links with their states, and what needs what as lines between them.

import { useMemo, useState } from "preact/hooks";
import type { StepDetail } from "../api/types";
import { isOver } from "../api/types";
import { now } from "../app";
import { StatusIcon, word } from "../parts/status";
import { duration } from "../parts/time";
import { stepPath } from "../route";
import { layout, type Edge } from "./layout";

/** Pixels. */
const [WIDTH, HEIGHT, GAP_X, GAP_Y, EDGE] = [184, 38, 52, 12, 4];

export function Graph({ run, steps }: { run: string; steps: StepDetail[] }) {
  const shape = JSON.stringify(steps.map((s) => [s.name, s.needs]));
  const drawn = useMemo(() => layout(steps), [shape]);
  const [near, setNear] = useState<string | undefined>(undefined);
  const of = new Map(steps.map((step) => [step.name, step]));
  const width = drawn.columns * (WIDTH + GAP_X) - GAP_X + 2 * EDGE;
  const height = drawn.rows * (HEIGHT + GAP_Y) - GAP_Y + 2 * EDGE;
  return (
    <div class="graph" role="group" aria-label="Steps and what they need">
      <div class="graph-inner" style={{ width: `${width}px`, height: `${height}px` }}>
        <svg width={width} height={height} aria-hidden="true">
          {drawn.edges.map((edge, i) => (
            <path key={i} d={way(edge)} class={edgeClass(edge, of, near)} />
          ))}
        </svg>
        {drawn.steps.map((placed) => {
          const step = of.get(placed.name)!;
          return (
            <a
              key={placed.name}
              href={stepPath(run, placed.name)}
              class={`graph-step status-${step.status}`}
              data-step={placed.name}
              data-status={step.status}
              style={{ left: `${left(placed.column)}px`, top: `${top(placed.row)}px`, width: `${WIDTH}px`, height: `${HEIGHT}px` }}
              title={step.title ?? step.name}
              aria-label={`${step.name}, ${word(step.status)}${step.needs.length ? `, needs ${step.needs.join(", ")}` : ""}`}
              onMouseEnter={() => setNear(placed.name)}
              onMouseLeave={() => setNear(undefined)}
              onFocus={() => setNear(placed.name)}
              onBlur={() => setNear(undefined)}
            >
              <StatusIcon status={step.status} bare />
              <span class="graph-name">{step.name}</span>
              <span class="graph-time">{took(step)}</span>
            </a>
          );
        })}
      </div>
    </div>
  );
}

function took(step: StepDetail): string {
  const from = step.times.started_ms;
  if (from == null) return "";
  return duration((step.times.ended_ms ?? (isOver(step.status) ? from : now.value)) - from);
}

const left = (column: number) => EDGE + column * (WIDTH + GAP_X);
const top = (row: number) => EDGE + row * (HEIGHT + GAP_Y);

/** From the right side of one to the left side of the other; a junction is a point between columns. */
function way(edge: Edge): string {
  const isJunction = (column: number) => column % 1 !== 0;
  const middle = (row: number) => top(row) + HEIGHT / 2;
  const gap = (column: number) => left(Math.ceil(column)) - GAP_X / 2;
  const x1 = isJunction(edge.from.column) ? gap(edge.from.column) : left(edge.from.column) + WIDTH;
  const x2 = isJunction(edge.to.column) ? gap(edge.to.column) : left(edge.to.column);
  const [y1, y2] = [middle(edge.from.row), middle(edge.to.row)];
  // Bends close to the target, so that a long line passes behind few steps.
  const bend = Math.min(GAP_X / 2, (x2 - x1) / 2);
  const [a, b] = [x2 - 2 * bend, x2 - bend];
  return `M${x1} ${y1}H${a}C${b} ${y1} ${b} ${y2} ${x2} ${y2}`;
}

function edgeClass(edge: Edge, of: Map<string, StepDetail>, near: string | undefined): string {
  const source = edge.source === undefined ? undefined : of.get(edge.source);
  const isNear = near !== undefined && (edge.source === near || edge.target === near);
  const isDone = source !== undefined && isOver(source.status);
  return `edge${isDone ? " done" : ""}${isNear ? " near" : ""}`;
}
