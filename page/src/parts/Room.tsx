// How much of a node is free, as a bar and in words; and whether the node takes steps.

import type { Node } from "../api/types";

export function Room({ what, free, of, words }: { what: string; free: number; of: number; words: (n: number) => string }) {
  const used = of > 0 ? Math.max(0, Math.min(1, 1 - free / of)) : 0;
  const label = `${what}: ${words(free)} free of ${words(of)}`;
  return (
    <div class="room" title={label}>
      <svg viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label={label}>
        <rect width="100" height="6" class="room-all" />
        <rect width={used * 100} height="6" class={used > 0.9 ? "room-used full" : "room-used"} />
      </svg>
      <small>
        {words(free)} <span class="faint">free of {words(of)}</span>
      </small>
    </div>
  );
}

/** In one word, and what an operator has asked for. */
export function NodeState({ node }: { node: Node }) {
  const [kind, text] = state(node);
  return (
    <span class={`node-state ${kind}`}>
      <svg viewBox="0 0 10 10" width="10" height="10" class="icon" aria-hidden="true">
        {kind === "well" ? <circle cx="5" cy="5" r="4" class="fill" /> : kind === "held" ? <path d="M1.5 1.5h7v7h-7z" class="fill" /> : <path d="M1.5 1.5l7 7M8.5 1.5l-7 7" class="stroke" />}
      </svg>
      {text}
    </span>
  );
}

function state(node: Node): ["well" | "held" | "away", string] {
  if (node.eligibility === "gone") return ["away", "gone"];
  if (node.lease === "expired") return ["away", "lost"];
  if (!node.connected) return ["away", "not connected"];
  if (node.eligibility === "draining") {
    const left = node.drain?.orders_left ?? 0;
    return ["held", left > 0 ? `draining, ${left} left` : "drained"];
  }
  if (node.eligibility === "cordoned") return ["held", node.cordoned_by ? `cordoned by ${node.cordoned_by}` : "cordoned"];
  return ["well", "takes steps"];
}
