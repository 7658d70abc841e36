// Every node and what is free on it.

import { api } from "../api/client";
import type { Node } from "../api/types";
import { moveRow, useKeys } from "../keys";
import { NodeState, Room } from "../parts/Room";
import { usePoll } from "../parts/poll";
import { Nothing } from "../parts/RunList";
import { bytes, cores } from "../parts/time";
import { useTitle } from "../parts/title";
import { nodePath } from "../route";

/** How often the nodes are asked for, milliseconds. */
const PERIOD_MS = 2_500;

export function Nodes() {
  useTitle("Nodes");
  const polled = usePoll(() => api.nodes(), PERIOD_MS, []);
  useKeys(
    () => [
      { keys: "j", what: "Next node", act: () => moveRow(1) },
      { keys: "k", what: "Node before", act: () => moveRow(-1) },
    ],
    [],
  );
  const list = polled.data.value;
  if (!list) return <Nothing refused={polled.refused.value} />;
  return (
    <>
      <div class="head">
        <h1>Nodes</h1>
        <Sum nodes={list.nodes} />
      </div>
      {list.nodes.length === 0 && (
        <p class="empty">
          No node has joined: <code>buildflow node join</code> brings one.
        </p>
      )}
      <table class="nodes">
        <caption class="unseen">Nodes and their free room</caption>
        <thead>
          <tr>
            <th scope="col">Node</th>
            <th scope="col">State</th>
            <th scope="col">CPU</th>
            <th scope="col">Memory</th>
            <th scope="col" class="wide">
              Disk
            </th>
            <th scope="col" class="number">
              Steps
            </th>
          </tr>
        </thead>
        <tbody>
          {list.nodes.map((node) => (
            <tr key={node.node_id}>
              <td>
                <a data-row href={nodePath(node.node_id)}>
                  <b>{node.name}</b>
                </a>
                <Labels node={node} />
              </td>
              <td>
                <NodeState node={node} />
              </td>
              <td>
                <Room what="CPU" free={node.free.cpu_millis} of={node.capacity.cpu_millis} words={cores} />
              </td>
              <td>
                <Room what="Memory" free={node.free.memory_bytes} of={node.capacity.memory_bytes} words={bytes} />
              </td>
              <td class="wide">
                <Room what="Disk" free={node.free.disk_bytes} of={node.capacity.disk_bytes} words={bytes} />
              </td>
              <td class="number">
                {node.allocations}
                <span class="faint"> / {node.slots}</span>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

function Sum({ nodes }: { nodes: Node[] }) {
  const usable = nodes.filter((node) => node.connected && node.eligibility === "eligible");
  const free = usable.reduce((sum, node) => sum + node.free.cpu_millis, 0);
  const memory = usable.reduce((sum, node) => sum + node.free.memory_bytes, 0);
  return (
    <p class="facts">
      {usable.length} of {nodes.length} take steps · {cores(free)} and {bytes(memory)} free
    </p>
  );
}

export function Labels({ node }: { node: Node }) {
  const labels = Object.entries(node.labels);
  return (
    <span class="labels">
      {labels.map(([key, value]) => (
        <span class="chip small" key={key}>
          {key}={value}
        </span>
      ))}
    </span>
  );
}
