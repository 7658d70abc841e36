// Writes src/api/schema.d.ts from the interface's own description: `npm run types -- URL-or-file`.
// The end-to-end tests compare the two.
import { writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";

const from = process.argv[2] ?? `${process.env.BUILDFLOW_ADDR ?? "http://127.0.0.1:7420"}/api/v1/openapi.json`;
const source = from.startsWith("http") ? new URL(from) : new URL(from, `file://${process.cwd()}/`);
await writeFile(new URL("../src/api/schema.d.ts", import.meta.url), await text(source));

export async function text(source) {
  const head = "// Written by `npm run types` from the interface's own description; not by hand.\n\n";
  return head + astToString(await openapiTS(source, { alphabetize: true }));
}
