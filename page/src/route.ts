// Which view an address names, and the address of each view. Not here: what a view shows.

export type Route =
  | { view: "runs"; filters: Filters }
  | { view: "run"; run: string }
  | { view: "step"; run: string; step: string; attempt?: number; q?: string; lines?: Lines }
  | { view: "pipelines" }
  | { view: "pipeline"; team: string; pipeline: string; filters: Filters }
  | { view: "nodes" }
  | { view: "node"; node: string }
  | { view: "login"; next: string; token?: string }
  | { view: "lost"; path: string };

export interface Filters {
  pipeline?: string;
  branch?: string;
  status?: string;
  person?: string;
}

/** Lines of a log, both included, from 1. */
export interface Lines {
  from: number;
  to: number;
}

/** The names of the filters, in the order in which they are shown. */
export const FILTERS = ["pipeline", "branch", "status", "person"] as const;

/** The view of an address: path, query and fragment as the browser has them. */
export function routeOf(address: { pathname: string; search: string; hash: string }): Route {
  const lost: Route = { view: "lost", path: address.pathname };
  const parts = address.pathname.split("/").filter((part) => part !== "");
  const words = parts.map(decoded);
  if (words.includes(undefined)) return lost;
  const [first, second, third, fourth] = words as string[];
  const query = new URLSearchParams(address.search);
  switch (first) {
    case undefined:
      return { view: "runs", filters: filtersOf(query) };
    case "runs":
      if (second === undefined) return { view: "runs", filters: filtersOf(query) };
      if (parts.length === 2) return { view: "run", run: second };
      if (third === "steps" && fourth !== undefined && parts.length === 4) {
        return stepRoute(second, fourth, query, address.hash);
      }
      return lost;
    case "pipelines":
      if (parts.length === 1) return { view: "pipelines" };
      if (parts.length === 3) return { view: "pipeline", team: second!, pipeline: third!, filters: filtersOf(query) };
      return lost;
    case "nodes":
      if (parts.length === 1) return { view: "nodes" };
      return parts.length === 2 ? { view: "node", node: second! } : lost;
    case "login": {
      const token = new URLSearchParams(address.hash.slice(1)).get("token");
      return { view: "login", next: safeNext(query.get("next")), ...(token ? { token } : {}) };
    }
    default:
      return lost;
  }
}

function stepRoute(run: string, step: string, query: URLSearchParams, hash: string): Route {
  const attempt = Number(query.get("attempt"));
  const q = query.get("q");
  const lines = linesOf(hash);
  return {
    view: "step",
    run,
    step,
    ...(Number.isSafeInteger(attempt) && attempt > 0 ? { attempt } : {}),
    ...(q ? { q } : {}),
    ...(lines ? { lines } : {}),
  };
}

/** `#L12` or `#L12-L20`. */
export function linesOf(hash: string): Lines | undefined {
  const found = /^#L(\d{1,12})(?:-L?(\d{1,12}))?$/.exec(hash);
  if (!found) return undefined;
  const [a, b] = [Number(found[1]), Number(found[2] ?? found[1])];
  return a > 0 && b > 0 ? { from: Math.min(a, b), to: Math.max(a, b) } : undefined;
}

export function hashOf(lines: Lines): string {
  return lines.from === lines.to ? `#L${lines.from}` : `#L${lines.from}-L${lines.to}`;
}

function decoded(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}

function filtersOf(query: URLSearchParams): Filters {
  const filters: Filters = {};
  for (const name of FILTERS) {
    const value = query.get(name);
    if (value) filters[name] = value;
  }
  return filters;
}

/** Only an address of this page: never another site's. */
export function safeNext(next: string | null): string {
  if (!next || !/^\/(?![/\\])/.test(next) || /[\u0000-\u001f\\]/.test(next)) return "/";
  return next.startsWith("/login") ? "/" : next;
}

/** The address of a list of runs with these filters. */
export function runsPath(filters: Filters, base = "/runs"): string {
  const query = new URLSearchParams();
  for (const name of FILTERS) {
    const value = filters[name];
    if (value) query.set(name, value);
  }
  const text = query.toString();
  return text ? `${base}?${text}` : base;
}

export function runPath(run: string): string {
  return `/runs/${encodeURIComponent(run)}`;
}

export function stepPath(run: string, step: string, more: { attempt?: number; q?: string; lines?: Lines } = {}): string {
  const query = new URLSearchParams();
  if (more.attempt) query.set("attempt", String(more.attempt));
  if (more.q) query.set("q", more.q);
  const text = query.toString();
  return `${runPath(run)}/steps/${encodeURIComponent(step)}${text ? `?${text}` : ""}${more.lines ? hashOf(more.lines) : ""}`;
}

export function pipelinePath(team: string, pipeline: string): string {
  return `/pipelines/${encodeURIComponent(team)}/${encodeURIComponent(pipeline)}`;
}

export function nodePath(node: string): string {
  return `/nodes/${encodeURIComponent(node)}`;
}
