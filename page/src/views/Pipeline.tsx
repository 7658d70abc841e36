// One pipeline: where it comes from, its runs, and starting one.

import { useSignal } from "@preact/signals";
import { api } from "../api/client";
import { go, trying } from "../app";
import { FilterBar } from "../parts/Filters";
import { usePoll } from "../parts/poll";
import { RunList } from "../parts/RunList";
import { useTitle } from "../parts/title";
import { pipelinePath, runPath, type Filters } from "../route";
import { Lost } from "./Lost";

export function PipelineView({ team, name, filters }: { team: string; name: string; filters: Filters }) {
  useTitle(name);
  const polled = usePoll(() => api.pipeline(team, name), 0, []);
  const branch = useSignal("");
  const isBusy = useSignal(false);
  const pipeline = polled.data.value;
  if (polled.refused.value?.status === 404) return <Lost what={`There is no pipeline ${team}/${name}.`} />;
  const start = () =>
    trying(async () => {
      isBusy.value = true;
      try {
        const made = await api.start(team, name, branch.value.trim());
        go(runPath(made.run_id));
      } finally {
        isBusy.value = false;
      }
    });
  return (
    <>
      <div class="head">
        <div>
          <h1>
            <span class="faint">{team}/</span>
            {name}
          </h1>
          {pipeline && (
            <p class="facts">
              <code class="where">{pipeline.repository}</code> <span class="faint">{pipeline.file}</span>
            </p>
          )}
        </div>
        <form
          class="start"
          onSubmit={(event) => {
            event.preventDefault();
            void start();
          }}
        >
          <label>
            <span class="unseen">Branch to run</span>
            <input placeholder="Default branch" maxLength={200} value={branch.value} onInput={(e) => (branch.value = e.currentTarget.value)} />
          </label>
          <button type="submit" class="primary" disabled={isBusy.value}>
            Run
          </button>
        </form>
      </div>
      <FilterBar filters={filters} base={pipelinePath(team, name)} />
      <RunList filters={filters} of={{ team, pipeline: name }} isOfOne />
    </>
  );
}
