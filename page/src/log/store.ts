// The lines of one attempt's log as far as they are here: fetched by number in blocks where somebody
// looks, and appended as they are written. Bounded: blocks that nobody looked at for long are let go.
// Not here: what is on the screen (`Viewer`), escape sequences (`ansi`).

import { api, BASE, logPath, Refused } from "../api/client";
import { Stream, type Link } from "../api/stream";
import type { LogLines } from "../api/types";
import { after, PLAIN, type Style } from "./ansi";
import type { Section } from "./folds";

/** Lines of a block. */
export const BLOCK = 500;

/** Characters that are kept: some hundred thousand usual lines. */
const KEPT_CHARS_MAX = 48_000_000;

/** What is kept of one line, as on the server. */
const LINE_CHARS_MAX = 16_384;

/** The pause before a block is asked for again that could not be fetched. */
const RETRY_MS = 1_000;

/** How soon after a line that looks like a heading the sections are asked for again. */
const SECTIONS_MS = 300;

interface Block {
  lines: string[];
  /** The style in which each line begins; `undefined`: there are no escape sequences in the block. */
  starts: Style[] | undefined;
  /** In which it was assumed to begin. */
  start: Style;
  end: Style;
  chars: number;
  used: number;
}

/** What the viewer hears: something changed, `grew`: lines were added at the end. */
export interface Heard {
  changed(): void;
  link(state: Link): void;
  failed(refused: Refused): void;
}

export class LogStore {
  /** How many lines there are, an unfinished one included. */
  total = 0;
  bytes = 0;
  attempt = 0;
  sections: Section[] = [];
  /** The length of lines that are shown in part. */
  readonly cut = new Map<number, number>();
  complete = false;
  lost = false;
  /** The first answer came. */
  isOpen = false;
  /** No more will come. */
  isOver = false;

  private readonly blocks = new Map<number, Block>();
  private readonly asked = new Map<number, AbortController>();
  private endsWithFeed = true;
  /** Whose bytes the stream brings. */
  private streamed = 0;
  private chars = 0;
  private uses = 0;
  private stream: Stream | undefined;
  private isClosed = false;
  private sectionsTimer: number | undefined;
  private retryTimer: number | undefined;

  constructor(
    private readonly run: string,
    private readonly step: string,
    /** `undefined`: the newest attempt, whichever it will be. */
    private readonly wanted: number | undefined,
    private readonly heard: Heard,
  ) {}

  /** Asks how long the log is, fetches its end, and follows it while it grows. */
  async open(): Promise<void> {
    try {
      const first = await this.ask(1, BLOCK);
      if (this.isClosed) return;
      this.attempt = first.attempt;
      this.sizes(first);
      this.put(1, first);
      if (first.end_offset < first.total_bytes) await this.end(blockOf(this.total));
      this.isOpen = true;
      this.heard.changed();
      this.follow();
    } catch (cause) {
      if (this.isClosed) return;
      if (cause instanceof Refused) {
        this.heard.failed(cause);
        if (cause.isOffline || cause.status >= 500) {
          this.retryTimer = window.setTimeout(() => void this.open(), RETRY_MS);
        }
      } else throw cause;
    }
  }

  close(): void {
    this.isClosed = true;
    this.stream?.close();
    for (const asked of this.asked.values()) asked.abort();
    window.clearTimeout(this.sectionsTimer);
    window.clearTimeout(this.retryTimer);
  }

  /** A line with the style that it begins in; `undefined`: it is on its way. */
  line(number: number): { text: string; start: Style } | undefined {
    const index = blockOf(number);
    const block = this.blocks.get(index);
    const at = (number - 1) % BLOCK;
    const text = block?.lines[at];
    if (!block || text === undefined) {
      this.fetch(index);
      return undefined;
    }
    block.used = ++this.uses;
    return { text, start: block.starts?.[at] ?? block.start };
  }

  /** Lines that are here, for a guess at what went wrong. */
  async read(from: number, count: number): Promise<string[]> {
    return (await this.ask(Math.max(1, from), count)).lines;
  }

  private ask(line: number, count: number, signal?: AbortSignal): Promise<LogLines> {
    const attempt = this.attempt || this.wanted;
    return api.lines(this.run, this.step, { attempt, line, count }, signal);
  }

  private sizes(answer: LogLines): void {
    this.sections = answer.sections;
    this.complete = answer.complete;
    this.lost = answer.lost;
    // The stream may have brought more since.
    if (answer.total_lines >= this.total) this.total = Math.max(this.total, answer.total_lines);
  }

  /** Fetches the last block whole, so that what comes live is appended to it. */
  private async end(index: number): Promise<void> {
    for (;;) {
      const here = this.blocks.get(index)?.lines.length ?? 0;
      const answer = await this.ask(index * BLOCK + 1 + here, BLOCK - here);
      if (this.isClosed) return;
      this.sizes(answer);
      this.put(answer.line, answer);
      const last = blockOf(this.total);
      if (last > index) index = last;
      else if (answer.lines.length === 0 || answer.end_offset >= answer.total_bytes) return;
    }
  }

  /** Puts lines into their blocks, after those that are there. */
  private put(line: number, answer: LogLines): void {
    for (const cut of answer.cut) this.cut.set(cut.line, cut.bytes);
    answer.lines.forEach((text, i) => this.set(line + i, text));
    const last = line + answer.lines.length - 1;
    if (answer.lines.length > 0 && last >= this.total) {
      this.total = last;
      this.bytes = answer.end_offset;
      this.endsWithFeed = answer.ended;
    } else if (this.total === 0) {
      this.bytes = answer.end_offset;
    }
  }

  private set(number: number, text: string): void {
    const index = blockOf(number);
    let block = this.blocks.get(index);
    if (!block) {
      const start = this.blocks.get(index - 1)?.end ?? PLAIN;
      block = { lines: [], starts: undefined, start, end: start, chars: 0, used: ++this.uses };
      this.blocks.set(index, block);
    }
    const at = (number - 1) % BLOCK;
    const before = block.lines[at];
    if (before === undefined && at !== block.lines.length) return;
    this.chars += text.length - (before?.length ?? 0);
    block.chars += text.length - (before?.length ?? 0);
    block.lines[at] = text;
    this.styles(block, at);
    this.letGo(index);
  }

  /** Works out in which style the lines from `at` on begin. */
  private styles(block: Block, at: number): void {
    const last = block.lines.length - 1;
    if (!block.starts) {
      const escapes = block.lines[at]!.includes("\x1b[");
      if (!escapes) {
        block.end = block.start;
        return;
      }
      block.starts = block.lines.map(() => block.start);
    }
    let style = block.starts[at] ?? (at > 0 ? after(block.lines[at - 1]!, block.starts[at - 1]!) : block.start);
    for (let i = at; i <= last; i++) {
      block.starts[i] = style;
      style = after(block.lines[i]!, style);
    }
    block.end = style;
  }

  private fetch(index: number): void {
    if (!this.isOpen || this.asked.has(index) || index < 0 || index > blockOf(this.total)) return;
    const asked = new AbortController();
    this.asked.set(index, asked);
    const here = this.blocks.get(index)?.lines.length ?? 0;
    const line = index * BLOCK + 1 + here;
    this.ask(line, Math.min(BLOCK - here, this.total - line + 1), asked.signal)
      .then((answer) => {
        if (this.isClosed) return;
        this.asked.delete(index);
        for (const cut of answer.cut) this.cut.set(cut.line, cut.bytes);
        answer.lines.forEach((text, i) => {
          if (blockOf(line + i) === index) this.set(line + i, text);
        });
        this.carry(index);
        this.heard.changed();
      })
      .catch((cause: unknown) => {
        if (this.isClosed || asked.signal.aborted) {
          this.asked.delete(index);
          return;
        }
        // Whoever still looks there asks again.
        window.setTimeout(() => {
          this.asked.delete(index);
          this.heard.changed();
        }, RETRY_MS);
        if (cause instanceof Refused) this.heard.failed(cause);
        else throw cause;
      });
  }

  /** A block came between others: the next one may begin in another style than was assumed. */
  private carry(index: number): void {
    const block = this.blocks.get(index)!;
    const next = this.blocks.get(index + 1);
    if (!next || next.start === block.end) return;
    next.start = block.end;
    if (next.starts || Object.keys(block.end).length > 0) {
      next.starts = [];
      this.styles(next, 0);
    }
  }

  /** Fetches of places that nobody looks at any more are given up. */
  looksAt(from: number, to: number): void {
    const [first, last] = [blockOf(from), blockOf(to)];
    for (const [index, asked] of this.asked) {
      if (index < first - 1 || index > last + 1) {
        asked.abort();
        this.asked.delete(index);
      }
    }
  }

  private letGo(current: number): void {
    while (this.chars > KEPT_CHARS_MAX && this.blocks.size > 8) {
      let oldest: number | undefined;
      const end = blockOf(this.total);
      for (const [index, block] of this.blocks) {
        const isFree = index !== current && index !== end && index !== end - 1;
        if (isFree && (oldest === undefined || block.used < this.blocks.get(oldest)!.used)) oldest = index;
      }
      if (oldest === undefined) return;
      this.chars -= this.blocks.get(oldest)!.chars;
      this.blocks.delete(oldest);
    }
  }

  /** Follows the log from where it is known; ends when the step has ended. */
  private follow(): void {
    if (this.complete || this.lost) {
      this.isOver = true;
      this.heard.link("off");
      this.heard.changed();
      return;
    }
    this.stream = new Stream(["step", "log", "bytes", "end", "done"], {
      address: () => {
        if (this.isOver) return undefined;
        const attempt = this.attempt > 0 ? `&attempt=${this.attempt}` : "";
        return `${BASE}${logPath(this.run, this.step)}?follow=true&offset=${this.bytes}${attempt}`;
      },
      event: (kind, data, id) => this.event(kind, data, id),
      link: (state) => this.heard.link(this.isOver ? "off" : state),
    });
  }

  private event(kind: string, data: string, id: string): void {
    switch (kind) {
      case "step":
        this.streamed = (JSON.parse(data) as { attempt: number }).attempt;
        this.attempt ||= this.streamed;
        return;
      case "log":
        if (this.streamed === this.attempt) this.append(data, offsetOf(id));
        return;
      case "bytes":
        if (this.streamed === this.attempt) this.append(decode(data), offsetOf(id));
        return;
      case "end": {
        const end = JSON.parse(data) as { attempt: number; complete: boolean; lost?: boolean };
        if (this.attempt !== 0 && end.attempt !== this.attempt) return;
        this.complete = end.complete;
        this.lost = end.lost ?? false;
        this.finish();
        return;
      }
      case "done":
        this.finish();
    }
  }

  /** A stream that was opened before the first attempt goes on with the next one, which is not ours. */
  private finish(): void {
    this.isOver = true;
    this.stream?.close();
    this.heard.changed();
  }

  /** Text that ends at `offset`; what was seen before is passed over. */
  private append(text: string, offset: number): void {
    if (!(offset > this.bytes)) return;
    this.bytes = offset;
    const parts = text.split("\n");
    let looksLikeHeading = false;
    parts.forEach((part, i) => {
      const isLast = i === parts.length - 1;
      if (isLast && part === "") return;
      if (i === 0 && !this.endsWithFeed) this.grow(part);
      else {
        this.total++;
        this.set(this.total, part.slice(0, LINE_CHARS_MAX));
        if (part.length > LINE_CHARS_MAX) this.cut.set(this.total, part.length);
        looksLikeHeading ||= part.startsWith("==> ") || part.startsWith("$ ");
      }
    });
    this.endsWithFeed = text.endsWith("\n");
    if (looksLikeHeading) this.askSections();
    this.heard.changed();
  }

  /** The last line goes on. */
  private grow(part: string): void {
    const block = this.blocks.get(blockOf(this.total));
    const before = block?.lines[(this.total - 1) % BLOCK] ?? "";
    const whole = before + part;
    if (whole.length > LINE_CHARS_MAX) {
      const length = this.cut.get(this.total) ?? before.length;
      this.cut.set(this.total, length + part.length);
    }
    if (before.length < LINE_CHARS_MAX) this.set(this.total, whole.slice(0, LINE_CHARS_MAX));
  }

  private askSections(): void {
    window.clearTimeout(this.sectionsTimer);
    this.sectionsTimer = window.setTimeout(() => {
      this.ask(1, 0).then(
        (answer) => {
          if (this.isClosed) return;
          this.sections = answer.sections;
          this.heard.changed();
        },
        () => {},
      );
    }, SECTIONS_MS);
  }
}

function blockOf(line: number): number {
  return Math.floor((line - 1) / BLOCK);
}

/** An event's id is the offset after it, from the second attempt on with the attempt before it. */
function offsetOf(id: string): number {
  return Number(id.slice(id.indexOf(".") + 1));
}

/** Base64 of bytes that are not text as they stand. */
function decode(data: string): string {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  return new TextDecoder().decode(bytes);
}
