// A stream of server-sent events that comes back by itself, where it was, after whatever broke it.
// While nobody sees the page it is let go: a browser opens only six connections to one server.
// Not here: what the events mean.

/** The first and the longest pause before a stream is opened again. */
const PAUSES_MS: readonly [number, number] = [300, 5_000];

/** A hidden page gives up its streams after this. */
const HIDDEN_MS = 15_000;

export type Link = "live" | "connecting" | "off";

export interface Streamed {
  /** The address to open now: it says where to go on. `undefined`: there is nothing more to come. */
  address(): string | undefined;
  /** An event of one of `kinds`, with its id. */
  event(kind: string, data: string, id: string): void;
  /** Whether events come at the moment. */
  link?(state: Link): void;
  /** The stream was refused; decides whether to go on, e.g. after looking why. */
  refused?(): Promise<boolean>;
}

/** Opens a stream and keeps it open until `close`. */
export class Stream {
  private source: EventSource | undefined;
  private timer: number | undefined;
  private pause = PAUSES_MS[0];
  private isClosed = false;
  private hiddenSince: number | undefined;

  constructor(
    private readonly kinds: readonly string[],
    private readonly streamed: Streamed,
  ) {
    document.addEventListener("visibilitychange", this.seen);
    window.addEventListener("online", this.soon);
    this.open();
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    document.removeEventListener("visibilitychange", this.seen);
    window.removeEventListener("online", this.soon);
    window.clearTimeout(this.timer);
    window.clearTimeout(this.hiddenSince);
    this.drop("off");
  }

  private drop(state: Link): void {
    this.source?.close();
    this.source = undefined;
    this.streamed.link?.(state);
  }

  private open(): void {
    window.clearTimeout(this.timer);
    if (this.isClosed || this.source) return;
    const address = this.streamed.address();
    if (address === undefined) {
      this.close();
      return;
    }
    this.streamed.link?.("connecting");
    const source = new EventSource(address);
    this.source = source;
    source.onopen = () => {
      this.pause = PAUSES_MS[0];
      if (this.source === source) this.streamed.link?.("live");
    };
    for (const kind of this.kinds) {
      source.addEventListener(kind, (event) => {
        if (this.source !== source) return;
        this.streamed.event(kind, event.data as string, event.lastEventId);
      });
    }
    source.onerror = () => {
      if (this.source === source) void this.broke();
    };
  }

  /** The browser would come back by itself, but not after every kind of refusal. */
  private async broke(): Promise<void> {
    this.drop("connecting");
    const goesOn = this.streamed.refused ? await this.streamed.refused() : true;
    if (!goesOn) this.close();
    if (this.isClosed) return;
    this.timer = window.setTimeout(() => this.open(), this.pause);
    this.pause = Math.min(this.pause * 2, PAUSES_MS[1]);
  }

  private readonly soon = (): void => {
    this.pause = PAUSES_MS[0];
    if (!document.hidden) this.open();
  };

  private readonly seen = (): void => {
    window.clearTimeout(this.hiddenSince);
    if (!document.hidden) this.soon();
    else this.hiddenSince = window.setTimeout(() => this.drop("off"), HIDDEN_MS);
  };
}
