// Writes src/api/schema.d.ts from the interface's own description: `npm run types -- [URL [FILE]]`,
// the file `-` being standard output. The end-to-end tests compare the two.
import { writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";

const [from = `${process.env.BUILDFLOW_ADDR ?? "http://127.0.0.1:7420"}/api/v1/openapi.json`, to] = process.argv.slice(2);
const head = "// Written by `npm run types` from the interface's own description; not by hand.\n\n";
const text = head + astToString(await openapiTS(new URL(from), { alphabetize: true }));
if (to === "-") process.stdout.write(text);
else await writeFile(to ?? new URL("../src/api/schema.d.ts", import.meta.url), text);
