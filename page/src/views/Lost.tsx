// What is said where there is nothing.

import { useTitle } from "../parts/title";

export function Lost({ what }: { what: string }) {
  useTitle("Not found");
  return (
    <section class="lost">
      <h1>Nothing here</h1>
      <p>{what}</p>
      <p>
        <a href="/runs">All runs</a>
      </p>
    </section>
  );
}
