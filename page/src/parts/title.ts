// The title of the browser's tab: what is shown, and how it stands.

import { useEffect } from "preact/hooks";

export function useTitle(title: string): void {
  useEffect(() => {
    document.title = title ? `${title} · BuildFlow` : "BuildFlow";
  }, [title]);
}
