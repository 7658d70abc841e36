// One node: its room, what it is, and what runs on it now.

import { api } from "../api/client";
import { now } from "../app";
import { NodeState, Room } from "../parts/Room";
import { usePoll } from "../parts/poll";
import { Nothing } from "../parts/RunList";
import { StatusIcon } from "../parts/status";
import { ago, bytes, cores, exact } from "../parts/time";
import { useTitle } from "../parts/title";
import { runPath, stepPath } from "../route";
import { Labels } from "./Nodes";
import { Lost } from "./Lost";

/** How often the node is asked for, milliseconds. */
const PERIOD_MS = 2_000;

export function NodeView({ name }: { name: string }) {
  const polled = usePoll(() => api.node(name), PERIOD_MS, [name]);
  const node = polled.data.value;
  useTitle(node?.name ?? "Node");
  if (polled.refused.value?.status === 404) return <Lost what={polled.refused.value.message} />;
  if (!node) return <Nothing refused={polled.refused.value} />;
  const facts = Object.entries(node.facts).filter(([, value]) => typeof value !== "object" && value !== "");
  return (
    <>
      <div class="head">
        <div>
          <p class="crumbs">
            <a href="/nodes">Nodes</a>
          </p>
          <h1>{node.name}</h1>
          <p class="facts">
            <NodeState node={node} /> <code class="faint">{node.node_id}</code> <Labels node={node} />
          </p>
        </div>
      </div>
      <div class="rooms">
        <Room what="CPU" free={node.free.cpu_millis} of={node.capacity.cpu_millis} words={cores} />
        <Room what="Memory" free={node.free.memory_bytes} of={node.capacity.memory_bytes} words={bytes} />
        <Room what="Disk" free={node.free.disk_bytes} of={node.capacity.disk_bytes} words={bytes} />
        <Room what="Places for steps" free={node.slots - node.allocations} of={node.slots} words={(n) => `${n} steps`} />
      </div>
      <h2>Steps on it</h2>
      {node.running.length === 0 ? (
        <p class="empty">None at the moment.</p>
      ) : (
        <table class="nodes">
          <thead>
            <tr>
              <th scope="col">Step</th>
              <th scope="col">Run</th>
              <th scope="col">Reserved</th>
              <th scope="col" class="number">
                Placed
              </th>
            </tr>
          </thead>
          <tbody>
            {node.running.map((alloc) => (
              <tr key={alloc.alloc_id}>
                <td>
                  <StatusIcon status={alloc.status ?? "assigned"} />{" "}
                  {alloc.step ? <a href={stepPath(alloc.run_id, alloc.step)}>{alloc.step}</a> : `step ${alloc.ordinal}`}
                  {alloc.stopping && <span class="faint"> is being stopped</span>}
                </td>
                <td>
                  <a href={runPath(alloc.run_id)}>
                    {alloc.pipeline ?? alloc.run_id} {alloc.number != null && `#${alloc.number}`}
                  </a>
                </td>
                <td>
                  {cores(alloc.resources.cpu_millis)}, {bytes(alloc.resources.memory_bytes)}
                </td>
                <td class="number">
                  <time title={exact(alloc.created_ms)}>{ago(alloc.created_ms, now.value)}</time>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      <h2>The machine</h2>
      <dl class="pairs">
        {facts.map(([key, value]) => (
          <div key={key}>
            <dt>{key.replaceAll("_", " ")}</dt>
            <dd>{String(value)}</dd>
          </div>
        ))}
        <div>
          <dt>registered</dt>
          <dd>{exact(node.registered_ms)}</dd>
        </div>
        <div>
          <dt>server</dt>
          <dd>{node.server ?? "none"}</dd>
        </div>
      </dl>
    </>
  );
}
