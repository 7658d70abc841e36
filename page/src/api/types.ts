// The interface's forms under the names that the page uses.

import type { components } from "./schema";

type Schemas = components["schemas"];

export type RunStatus = Schemas["RunStatus"];
export type StepStatus = Schemas["StepStatus"];
export type Status = RunStatus | StepStatus;
export type RunSummary = Schemas["RunSummary"];
export type RunList = Schemas["RunList"];
export type RunDetail = Schemas["RunDetail"];
export type StageDetail = Schemas["StageDetail"];
export type StepDetail = Schemas["StepDetail"];
export type StepChanged = Schemas["StepChanged"];
export type RunChanged = Schemas["RunChanged"];
export type RunCreated = Schemas["RunCreated"];
export type CancelAccepted = Schemas["CancelAccepted"];
export type StepExplained = Schemas["StepExplained"];
export type Pipeline = Schemas["Pipeline"];
export type PipelineList = Schemas["PipelineList"];
export type Node = Schemas["Node"];
export type NodeDetail = Schemas["NodeDetail"];
export type NodeList = Schemas["NodeList"];
export type Resources = Schemas["Resources"];
export type Session = Schemas["Session"];
export type LogLines = Schemas["LogLines"];
export type LogMatches = Schemas["LogMatches"];
export type LogMatch = Schemas["LogMatch"];
export type Problem = Schemas["Problem"];

const OVER: ReadonlySet<Status> = new Set<Status>(["success", "failed", "cancelled", "timed_out", "skipped"]);

/** True when nothing more happens by itself. */
export function isOver(status: Status): boolean {
  return OVER.has(status);
}

/** True when it ended badly by itself. */
export function isBad(status: Status): boolean {
  return status === "failed" || status === "timed_out";
}
