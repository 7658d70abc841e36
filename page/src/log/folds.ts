// Which lines stand in which rows while some sections are folded.
// Not here: the sections themselves, which the server finds.

export interface Section {
  /** The line above its output, from 1. */
  line: number;
  title: string;
  named: boolean;
}

/** Lines that are not shown: `from` to `to`, both included. */
interface Hidden {
  from: number;
  to: number;
}

/** Rows (from 0) and lines (from 1). Made anew whenever the lines, the sections or the folds change. */
export class Rows {
  private readonly hidden: Hidden[];
  /** Lines hidden before each of `hidden`. */
  private readonly before: number[] = [];
  readonly count: number;

  /** `folded` holds the lines of the sections that are folded. */
  constructor(total: number, sections: readonly Section[], folded: ReadonlySet<number>) {
    this.hidden = sections
      .map((section, index) => ({
        line: section.line,
        from: section.line + 1,
        to: Math.min(total, (sections[index + 1]?.line ?? Infinity) - 1),
      }))
      .filter((s) => folded.has(s.line) && s.to >= s.from);
    let sum = 0;
    for (const part of this.hidden) {
      this.before.push(sum);
      sum += part.to - part.from + 1;
    }
    this.count = total - sum;
  }

  /** The line in a row. */
  lineOf(row: number): number {
    // The last hidden part that lies above the row.
    let [low, high] = [0, this.hidden.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      const part = this.hidden[middle]!;
      if (part.from - 1 - this.before[middle]! <= row) low = middle + 1;
      else high = middle;
    }
    if (low === 0) return row + 1;
    const part = this.hidden[low - 1]!;
    return row + 1 + this.before[low - 1]! + (part.to - part.from + 1);
  }

  /** The row of a line; of a hidden one that of the line above its section. */
  rowOf(line: number): number {
    let [low, high] = [0, this.hidden.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.hidden[middle]!.from <= line) low = middle + 1;
      else high = middle;
    }
    if (low === 0) return line - 1;
    const part = this.hidden[low - 1]!;
    if (line <= part.to) return part.from - 2 - this.before[low - 1]!;
    return line - 1 - this.before[low - 1]! - (part.to - part.from + 1);
  }
}

/** The section that holds a line. */
export function sectionOf(sections: readonly Section[], line: number): Section | undefined {
  let [low, high] = [0, sections.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sections[middle]!.line <= line) low = middle + 1;
    else high = middle;
  }
  return sections[low - 1];
}
