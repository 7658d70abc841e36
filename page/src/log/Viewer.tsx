// The lines of a log that are on the screen, in a list of any length. The reader's place moves only
// when the reader moves it, or when he is at the end and lines are added: then he stays at the end.
// Not here: where lines come from (`store`), search, folds' state.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Lines } from "../route";
import { hashOf } from "../route";
import type { Rows, Section } from "./folds";
import { LineText } from "./Line";
import type { LogStore } from "./store";
import { drawn, height, isAtEnd, reveal, rowAt, scrollTo, type Geometry } from "./window";

/** The height of a line, pixels; the style sheet says the same. */
export const ROW = 20;

export interface Reader {
  /** Shows a line; with `always` also if it is on the screen already. */
  show(line: number): void;
  toEnd(): void;
  toStart(): void;
  /** The first line on the screen. */
  first(): number;
}

interface Props {
  store: LogStore;
  /** Changes with everything in the store. */
  version: number;
  rows: Rows;
  sections: readonly Section[];
  folded: ReadonlySet<number>;
  fold: (line: number) => void;
  needle: string;
  chosen: Lines | undefined;
  choose: (lines: Lines) => void;
  label: string;
  rawLine: (line: number) => string;
  /** Whether new lines are followed; and how many came while they were not. */
  following: (is: boolean, missed: number) => void;
  reader: { current: Reader | undefined };
}

export function Viewer(props: Props) {
  const { store, rows, folded, needle, chosen } = props;
  const box = useRef<HTMLDivElement>(null);
  const [place, setPlace] = useState({ scroll: 0, screen: 600 });
  const widest = useRef(0);
  const inner = useRef<HTMLDivElement>(null);
  const isFollowing = useRef(false);
  const seen = useRef(0);
  const frame = useRef(0);
  /** Where the list was scrolled to last, by whomever. */
  const last = useRef(0);
  const g: Geometry = { rows: rows.count, row: ROW, screen: place.screen };
  const latest = useRef({ g, rows, total: store.total });
  latest.current = { g, rows, total: store.total };

  const tell = (is: boolean) => {
    isFollowing.current = is;
    if (is) seen.current = latest.current.total;
    props.following(is, latest.current.total - seen.current);
  };
  const move = (scroll: number) => {
    const element = box.current!;
    element.scrollTop = scroll;
    last.current = element.scrollTop;
    setPlace({ scroll: element.scrollTop, screen: element.clientHeight });
  };

  useLayoutEffect(() => {
    const element = box.current!;
    const measure = () => setPlace({ scroll: element.scrollTop, screen: element.clientHeight });
    const watch = new ResizeObserver(measure);
    watch.observe(element);
    measure();
    return () => watch.disconnect();
  }, []);

  // New lines: whoever is at the end stays there, unless he is marking text.
  useLayoutEffect(() => {
    if (isFollowing.current && !isMarking(box.current!)) {
      const end = height(g) - g.screen;
      if (Math.abs(box.current!.scrollTop - end) > 0.5) move(end);
      seen.current = store.total;
    }
    props.following(isFollowing.current, store.total - seen.current);
  }, [rows.count, store.total, place.screen]);

  // The widest line that was drawn sets how far one can scroll to the side.
  useLayoutEffect(() => {
    const width = inner.current?.scrollWidth ?? 0;
    if (width > widest.current) {
      widest.current = width;
      inner.current!.style.minWidth = `${width}px`;
    }
  });

  useEffect(() => {
    props.reader.current = {
      show: (line) => {
        const { g, rows } = latest.current;
        move(reveal(g, rows.rowOf(line), box.current!.scrollTop));
        tell(isAtEnd(g, box.current!.scrollTop));
      },
      toEnd: () => {
        const { g } = latest.current;
        move(height(g) - g.screen);
        tell(true);
      },
      toStart: () => {
        move(0);
        tell(false);
      },
      first: () => {
        const { g, rows } = latest.current;
        return rows.lineOf(Math.floor(rowAt(g, box.current!.scrollTop)));
      },
    };
    return () => (props.reader.current = undefined);
  }, []);

  const scrolled = () => {
    const top = box.current!.scrollTop;
    // A smooth way up begins within reach of the end.
    if (top < last.current - 0.5) tell(false);
    else if (top > last.current + 0.5) tell(isAtEnd(latest.current.g, top));
    last.current = top;
    cancelAnimationFrame(frame.current);
    frame.current = requestAnimationFrame(() => {
      const element = box.current;
      if (element) setPlace({ scroll: element.scrollTop, screen: element.clientHeight });
    });
  };
  // Whoever begins to go up is not held at the end by the lines that come meanwhile.
  const leave = () => {
    if (isFollowing.current) tell(false);
  };
  const pressed = (event: KeyboardEvent) => {
    if (["ArrowUp", "PageUp", "Home"].includes(event.key) || (event.key === " " && event.shiftKey)) leave();
  };
  const grabbed = (event: PointerEvent) => {
    const isScrollBar = event.target === box.current && event.offsetX >= box.current!.clientWidth;
    if (isScrollBar || event.pointerType === "touch") leave();
  };
  // A list that is scaled would jump hundreds of lines with each turn of the wheel.
  const wheel = (event: WheelEvent) => {
    if (event.deltaY < 0) leave();
    const isScaled = g.rows * g.row > height(g);
    if (!isScaled || event.ctrlKey || event.deltaY === 0) return;
    event.preventDefault();
    const lines = (event.deltaMode === 1 ? event.deltaY * ROW : event.deltaY) / ROW;
    move(scrollTo(g, rowAt(g, box.current!.scrollTop) + lines));
    tell(isAtEnd(g, box.current!.scrollTop));
  };

  const { from, to, top } = drawn(g, place.scroll);
  const shown: number[] = [];
  for (let row = from; row < to; row++) shown.push(rows.lineOf(row));
  if (shown.length > 0) store.looksAt(shown[0]!, shown[shown.length - 1]!);
  const heads = new Map(props.sections.map((section) => [section.line, section]));
  return (
    <div class="log" ref={box} onScroll={scrolled} onWheel={wheel} onKeyDown={pressed} onPointerDown={grabbed} tabIndex={0} role="region" aria-label={props.label} data-total={store.total}>
      <div class="log-all" style={{ height: `${height(g)}px` }}>
        <div class="log-part" ref={inner} style={{ transform: `translateY(${top}px)` }}>
          {shown.map((line) => (
            <Row
              key={line}
              line={line}
              here={store.line(line)}
              length={store.cut.get(line)}
              needle={needle}
              section={heads.get(line)}
              isFolded={folded.has(line)}
              isChosen={chosen !== undefined && line >= chosen.from && line <= chosen.to}
              props={props}
            />
          ))}
        </div>
      </div>
    </div>
  );
}

interface RowProps {
  line: number;
  here: ReturnType<LogStore["line"]>;
  length: number | undefined;
  needle: string;
  section: Section | undefined;
  isFolded: boolean;
  isChosen: boolean;
  props: Props;
}

function Row({ line, here, length, needle, section, isFolded, isChosen, props }: RowProps) {
  const choose = (event: MouseEvent) => {
    if (event.ctrlKey || event.metaKey || event.button !== 0) return;
    event.preventDefault();
    const { chosen } = props;
    const isRange = event.shiftKey && chosen !== undefined;
    props.choose(isRange ? { from: Math.min(chosen.from, line), to: Math.max(chosen.to, line) } : { from: line, to: line });
  };
  const hidden = isFolded && section ? hiddenLines(section, props) : 0;
  return (
    <div class={`line${isChosen ? " chosen" : ""}${section ? (section.named ? " head named" : " head") : ""}`} data-line={line}>
      <span class="gutter">
        {section ? (
          <button type="button" class="fold" aria-expanded={!isFolded} aria-label={`${isFolded ? "Unfold" : "Fold"} ${section.title}`} onClick={() => props.fold(line)}>
            <svg viewBox="0 0 10 10" width="10" height="10" class="icon" aria-hidden="true">
              <path d={isFolded ? "M3 1.5L7 5 3 8.5" : "M1.5 3L5 7l3.5-4"} class="stroke" />
            </svg>
          </button>
        ) : (
          <i class="fold" />
        )}
        <a class="ln" href={hashOf({ from: line, to: line })} aria-label={`Line ${line}`} onClick={choose}>
          {line}
        </a>
      </span>
      {here ? <LineText text={here.text} start={here.start} needle={needle} length={length} raw={props.rawLine(line)} /> : <code class="tx absent">…</code>}
      {hidden > 0 && (
        <button type="button" class="hidden-lines" onClick={() => props.fold(line)}>
          {hidden.toLocaleString("en-US")} lines
        </button>
      )}
    </div>
  );
}

function hiddenLines(section: Section, { sections, store }: Props): number {
  const next = sections.find((other) => other.line > section.line)?.line ?? store.total + 1;
  return next - section.line - 1;
}

function isMarking(box: HTMLElement): boolean {
  const selection = document.getSelection();
  return !!selection && !selection.isCollapsed && box.contains(selection.anchorNode);
}
