// The line of a log that most likely says what went wrong. A guess, shown as such beside the
// server's own sentence. Not here: reading the log.

import { plain } from "./ansi";

/** What errors look like in the tools that people use, the surest first. */
const LOOKS: readonly RegExp[] = [
  // Compilers and linters: `error[E0308]: …`, `x.c:3:5: error: …`, `fatal: …`, `ERROR in …`.
  /(^|[\s:[(])(fatal( error)?|error)(\[[A-Z]*\d+\])?[:!]/i,
  /^(E\s{2,}|error\b|ERROR\b|FATAL\b|fatal\b|panic:|\s*panicked at|thread '.*' panicked)/,
  // Test runners.
  /(^|\s)(--- FAIL|FAIL(ED)?\b|not ok \d|AssertionError|✗|✘|✕)/,
  // Exceptions, and what shells and make say.
  /^([A-Za-z_][\w.]*)?(Error|Exception)\b.*:/,
  /\b(command not found|No such file or directory|Permission denied|Segmentation fault|cannot find|undefined reference|not found)\b/i,
  /\*\*\* .*(Error|Stop)/,
];

/** Lines that hold such words and say the contrary. */
const HARMLESS = /\b(0|no) (errors?|failures?|failed)\b|\berrors?[:=]\s*0\b|-Werror|--error|on[-_ ]error/i;

/** Looks like the beginning of what went wrong? The first line of the surest kind; `undefined`: none does. */
export function firstError(lines: readonly string[]): number | undefined {
  const texts = lines.map(plain);
  for (const look of LOOKS) {
    const at = texts.findIndex((text) => look.test(text) && !HARMLESS.test(text));
    if (at >= 0) return at;
  }
  return undefined;
}

/** The last line that is not empty. */
export function lastWords(lines: readonly string[]): number | undefined {
  for (let at = lines.length - 1; at >= 0; at--) {
    if (plain(lines[at]!).trim() !== "") return at;
  }
  return undefined;
}
