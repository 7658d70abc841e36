// Data that is asked for again and again while somebody looks; what is there stays on the screen
// while the server is away. Not here: streams, which need no asking.

import { useSignal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Refused } from "../api/client";
import { isOffline } from "../app";

export interface Polled<T> {
  data: Signal<T | undefined>;
  refused: Signal<Refused | undefined>;
  /** Asks now. */
  again: () => void;
}

/** Asks at once, whenever `inputs` change, and every `period` milliseconds; 0: not again. */
export function usePoll<T>(ask: (signal: AbortSignal) => Promise<T>, period: number, inputs: readonly unknown[]): Polled<T> {
  const data = useSignal<T | undefined>(undefined);
  const refused = useSignal<Refused | undefined>(undefined);
  const turn = useSignal(0);
  useEffect(() => {
    const stop = new AbortController();
    let timer: number | undefined;
    const round = async () => {
      let isWell = true;
      try {
        const answer = await ask(stop.signal);
        if (stop.signal.aborted) return;
        data.value = answer;
        refused.value = undefined;
        isOffline.value = false;
      } catch (cause) {
        if (stop.signal.aborted) return;
        if (!(cause instanceof Refused)) throw cause;
        refused.value = cause;
        isOffline.value = cause.isOffline;
        isWell = !cause.isOffline && cause.status < 500;
      }
      if (period > 0 || !isWell) timer = window.setTimeout(wait, Math.max(period, 1_500));
    };
    // A page that nobody sees asks nothing.
    const wait = () => {
      if (!document.hidden) void round();
      else timer = window.setTimeout(wait, 1_000);
    };
    void round();
    return () => {
      stop.abort();
      window.clearTimeout(timer);
    };
  }, [...inputs, turn.value]);
  return { data, refused, again: () => turn.value++ };
}
