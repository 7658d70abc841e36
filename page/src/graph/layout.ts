// Where the steps of a run stand in the drawing of its DAG, and which way the lines between them
// take. Pure. Steps that need exactly the same others share a junction, so that two stages of a
// hundred steps are drawn with two hundred lines and not with ten thousand. Not here: drawing.

export interface Step {
  name: string;
  needs: readonly string[];
}

export interface Placed {
  name: string;
  /** Column and row, from 0. */
  column: number;
  row: number;
}

/** A line from where a step ends to where another begins, in columns and rows; a junction has a half column. */
export interface Edge {
  from: Point;
  to: Point;
  /** Names of the steps at its ends; a junction has none. */
  source?: string;
  target?: string;
}

interface Point {
  column: number;
  row: number;
}

export interface Layout {
  steps: Placed[];
  edges: Edge[];
  columns: number;
  rows: number;
}

/** How often the rows are put in the order of their neighbours. */
const SWEEPS = 4;

/** Fewer steps than this on both sides are joined by plain lines. */
const JUNCTION_FROM = 3;

export function layout(steps: readonly Step[]): Layout {
  const known = new Map(steps.map((step) => [step.name, step]));
  const needs = (step: Step) => step.needs.filter((name) => known.has(name));
  const column = columnsOf(steps, needs);
  const lanes = ordered(steps, needs, column);
  const rows = Math.max(1, ...lanes.map((lane) => lane.length));
  const place = new Map<string, Point>();
  lanes.forEach((lane, c) => {
    // A short column stands in the middle of the tall ones.
    const above = (rows - lane.length) / 2;
    lane.forEach((name, r) => place.set(name, { column: c, row: above + r }));
  });
  return {
    steps: steps.map((step) => ({ name: step.name, ...place.get(step.name)! })),
    edges: edgesOf(steps, needs, place),
    columns: lanes.length,
    rows,
  };
}

type Needs = (step: Step) => string[];

/** The longest way to each step; a circle (which no checked pipeline has) is cut. */
function columnsOf(steps: readonly Step[], needs: Needs): Map<string, number> {
  const column = new Map<string, number>();
  const waiting = new Map(steps.map((step) => [step.name, new Set(needs(step)).size]));
  const followers = new Map<string, string[]>();
  for (const step of steps) {
    for (const need of new Set(needs(step))) followers.set(need, [...(followers.get(need) ?? []), step.name]);
  }
  const ready = steps.filter((step) => waiting.get(step.name) === 0).map((step) => step.name);
  for (const name of ready) column.set(name, 0);
  for (let at = 0; at < ready.length; at++) {
    const name = ready[at]!;
    for (const follower of followers.get(name) ?? []) {
      column.set(follower, Math.max(column.get(follower) ?? 0, column.get(name)! + 1));
      const left = waiting.get(follower)! - 1;
      waiting.set(follower, left);
      if (left === 0) ready.push(follower);
    }
  }
  for (const step of steps) if (waiting.get(step.name)! > 0) column.set(step.name, column.get(step.name) ?? 0);
  return column;
}

/** The steps of each column, near those that they need. */
function ordered(steps: readonly Step[], needs: Needs, column: Map<string, number>): string[][] {
  const lanes: string[][] = [];
  for (const step of steps) (lanes[column.get(step.name)!] ??= []).push(step.name);
  for (let c = 0; c < lanes.length; c++) lanes[c] ??= [];
  const before = new Map(steps.map((step) => [step.name, needs(step)]));
  const rank = new Map<string, number>();
  const number = (lane: string[]) => lane.forEach((name, row) => rank.set(name, row - lane.length / 2));
  lanes.forEach(number);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    for (const lane of lanes.slice(1)) {
      const middle = (name: string) => {
        const rows = before.get(name)!.map((need) => rank.get(need)!);
        return rows.length === 0 ? rank.get(name)! : rows.reduce((a, b) => a + b, 0) / rows.length;
      };
      const at = new Map(lane.map((name) => [name, middle(name)]));
      // Equal ones stay in the order of the file: sorting is stable.
      lane.sort((a, b) => at.get(a)! - at.get(b)!);
      number(lane);
    }
  }
  return lanes;
}

function edgesOf(steps: readonly Step[], needs: Needs, place: Map<string, Point>): Edge[] {
  const groups = new Map<string, { needs: string[]; steps: string[] }>();
  for (const step of steps) {
    const of = [...new Set(needs(step))].sort();
    if (of.length === 0) continue;
    const key = JSON.stringify([place.get(step.name)!.column, of]);
    const group = groups.get(key);
    if (group) group.steps.push(step.name);
    else groups.set(key, { needs: of, steps: [step.name] });
  }
  const edges: Edge[] = [];
  for (const group of groups.values()) {
    const many = Math.max(group.needs.length, group.steps.length) >= JUNCTION_FROM;
    if (group.needs.length > 1 && group.steps.length > 1 && many) joined(group, place, edges);
    else {
      for (const source of group.needs) {
        for (const target of group.steps) {
          edges.push({ from: place.get(source)!, to: place.get(target)!, source, target });
        }
      }
    }
  }
  return edges;
}

function joined(group: { needs: string[]; steps: string[] }, place: Map<string, Point>, edges: Edge[]): void {
  const targets = group.steps.map((name) => place.get(name)!);
  const row = targets.reduce((sum, p) => sum + p.row, 0) / targets.length;
  const junction = { column: targets[0]!.column - 0.5, row };
  for (const source of group.needs) edges.push({ from: place.get(source)!, to: junction, source });
  for (const target of group.steps) edges.push({ from: junction, to: place.get(target)!, target });
}
