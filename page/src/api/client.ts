// Requests to the server: one form for what went wrong, and what to do when nobody is logged in.
// The token is in a cookie that no script can read. Not here: streams (`stream`).

import type {
  CancelAccepted,
  LogLines,
  LogMatches,
  NodeDetail,
  NodeList,
  Pipeline,
  PipelineList,
  Problem,
  RunCreated,
  RunDetail,
  RunList,
  Session,
  StepExplained,
} from "./types";

export const BASE = "/api/v1";

/** How long a request may take; a search of a large log takes seconds. */
const PATIENCE_MS = 30_000;

/** What the server said against a request, or that it could not be asked. */
export class Refused extends Error {
  constructor(
    /** HTTP status; 0: the server could not be reached. */
    readonly status: number,
    message: string,
    readonly requestId?: string,
  ) {
    super(message);
  }

  get isOffline(): boolean {
    return this.status === 0;
  }
}

let onLoggedOut: () => void = () => {};

/** Says what happens when the server does not know the session (any more). */
export function whenLoggedOut(then: () => void): void {
  onLoggedOut = then;
}

interface Asked {
  method?: "GET" | "POST" | "DELETE";
  body?: unknown;
  token?: string;
  signal?: AbortSignal;
  /** Do not go to the log-in when the session is not known. */
  quiet?: boolean;
}

async function ask<T>(path: string, asked: Asked = {}): Promise<T> {
  const headers: Record<string, string> = { accept: "application/json" };
  const method = asked.method ?? "GET";
  if (method !== "GET") headers["x-buildflow-page"] = "1";
  if (asked.body !== undefined) headers["content-type"] = "application/json";
  if (asked.token !== undefined) headers["authorization"] = `Bearer ${asked.token}`;
  const timeout = AbortSignal.timeout(PATIENCE_MS);
  let response: Response;
  try {
    response = await fetch(BASE + path, {
      method,
      headers,
      credentials: "same-origin",
      signal: asked.signal ? AbortSignal.any([asked.signal, timeout]) : timeout,
      ...(asked.body === undefined ? {} : { body: JSON.stringify(asked.body) }),
    });
    if (response.ok) return response.status === 204 ? (undefined as T) : ((await response.json()) as T);
  } catch (cause) {
    if (asked.signal?.aborted) throw cause;
    throw new Refused(0, "The server cannot be reached. It is tried again.");
  }
  const problem = (await response.json().catch(() => undefined)) as Problem | undefined;
  if (response.status === 401 && !asked.quiet) onLoggedOut();
  throw new Refused(
    response.status,
    sentence(problem?.detail ?? problem?.title ?? `The server answered ${response.status}.`),
    problem?.request_id ?? undefined,
  );
}

/** As a sentence for people: the server writes errors in small letters. */
function sentence(text: string): string {
  const first = text.slice(0, 1).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

function queried(path: string, parameters: Record<string, string | number | undefined>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== "") query.set(name, String(value));
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

const part = encodeURIComponent;

export interface RunQuery {
  status?: string | undefined;
  branch?: string | undefined;
  person?: string | undefined;
  cursor?: string | undefined;
  limit?: number | undefined;
}

export function logPath(run: string, step: string): string {
  return `/runs/${part(run)}/steps/${part(step)}/logs`;
}

export const api = {
  session: () => ask<Session>("/session", { quiet: true }),
  logIn: (token: string) => ask<Session>("/session", { method: "POST", token, quiet: true }),
  logOut: () => ask<void>("/session", { method: "DELETE", quiet: true }),

  runs: (query: RunQuery, signal?: AbortSignal) =>
    ask<RunList>(queried("/runs", { ...query }), signal ? { signal } : {}),
  pipelineRuns: (team: string, pipeline: string, query: RunQuery, signal?: AbortSignal) =>
    ask<RunList>(
      queried(`/pipelines/${part(team)}/${part(pipeline)}/runs`, { ...query }),
      signal ? { signal } : {},
    ),
  run: (run: string) => ask<RunDetail>(`/runs/${part(run)}`),
  cancel: (run: string) => ask<CancelAccepted>(`/runs/${part(run)}/cancel`, { method: "POST" }),
  retry: (run: string, step?: string) =>
    ask<unknown>(step ? `/runs/${part(run)}/steps/${part(step)}/retry` : `/runs/${part(run)}/retry`, {
      method: "POST",
      body: {},
    }),
  start: (team: string, pipeline: string, branch: string) =>
    ask<RunCreated>(`/pipelines/${part(team)}/${part(pipeline)}/runs`, {
      method: "POST",
      body: branch ? { branch, force: true } : { force: true },
    }),
  explain: (run: string, step: string) => ask<StepExplained>(`/runs/${part(run)}/steps/${part(step)}/explain`),

  pipelines: (cursor?: string) => ask<PipelineList>(queried("/pipelines", { cursor, limit: 200 })),
  pipeline: (team: string, pipeline: string) => ask<Pipeline>(`/pipelines/${part(team)}/${part(pipeline)}`),
  nodes: () => ask<NodeList>("/nodes"),
  node: (node: string) => ask<NodeDetail>(`/nodes/${part(node)}`),

  lines: (run: string, step: string, where: { attempt?: number | undefined; line: number; count: number }, signal?: AbortSignal) =>
    ask<LogLines>(queried(logPath(run, step), where), signal ? { signal } : {}),
  search: (
    run: string,
    step: string,
    where: { attempt?: number | undefined; q: string; line: number; count: number },
    signal?: AbortSignal,
  ) => ask<LogMatches>(queried(logPath(run, step), where), signal ? { signal } : {}),
};

/** Where the plain text of a log is. */
export function rawLog(run: string, step: string, where: { attempt?: number; line?: number; count?: number } = {}): string {
  return BASE + queried(logPath(run, step), where);
}
