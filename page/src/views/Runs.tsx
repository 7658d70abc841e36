// All runs, narrowed by what stands in the address.

import { api } from "../api/client";
import { FilterBar } from "../parts/Filters";
import { usePoll } from "../parts/poll";
import { RunList } from "../parts/RunList";
import { useTitle } from "../parts/title";
import type { Filters } from "../route";

/** How often the names for the filter are asked for, milliseconds. */
const PERIOD_MS = 5_000;

export function Runs({ filters }: { filters: Filters }) {
  useTitle("Runs");
  const pipelines = usePoll(() => api.pipelines(), PERIOD_MS, []);
  const names = (pipelines.data.value?.pipelines ?? []).map((p) => `${p.team}/${p.name}`);
  return (
    <>
      <h1 class="unseen">Runs</h1>
      <FilterBar filters={filters} base="/runs" pipelines={names} />
      {pipelines.data.value?.pipelines.length === 0 ? (
        <section class="welcome">
          <h2>No pipeline yet</h2>
          <p>In a project’s folder:</p>
          <pre>
            buildflow init{"\n"}buildflow pipeline create default/my-project --repo file://$PWD{"\n"}buildflow run --pipeline default/my-project --ref main --follow
          </pre>
        </section>
      ) : (
        <RunList filters={filters} />
      )}
    </>
  );
}
