// A BuildFlow of a test's own: a folder, an image with busybox, repositories, and the real program
// as a process of its own. Everything is removed at the end. Not here: the browser.

import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The top of the tree. */
export const TOP = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

/** The program under test. */
export const PROGRAM = process.env.BUILDFLOW_PROGRAM ?? join(process.env.CARGO_TARGET_DIR ?? join(TOP, "target"), "debug/buildflow");

/** The browser: Debian's. */
export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** How long anything may take on a loaded machine. */
export const PATIENCE_MS = 60_000;

/** What this machine lacks for these tests; empty: nothing. */
export function missing(): string[] {
  const lacks: string[] = [];
  if (!existsSync(CHROMIUM)) lacks.push(`${CHROMIUM} (Debian's package chromium)`);
  if (!existsSync("/bin/busybox")) lacks.push("/bin/busybox (Debian's package busybox-static)");
  if (!existsSync(PROGRAM)) lacks.push(`${PROGRAM} (make build)`);
  if (process.getuid?.() !== 0) lacks.push("root, for containers");
  return lacks;
}

export interface Made {
  run_id: string;
  web_url: string;
}

export class World {
  address = "";
  token = "";
  private process: ChildProcess | undefined;

  private constructor(
    readonly folder: string,
    private readonly port: number,
    /** What the page is told to be part of an address, e.g. `localhost` for a cookie of its own. */
    private readonly host = "127.0.0.1",
  ) {}

  /** With `extra` programs, by name and path, in the image's `/bin`. */
  static async start(extra: Record<string, string> = {}): Promise<World> {
    const folder = mkdtempSync(join(tmpdir(), "buildflow-page-"));
    const world = new World(folder, await freePort());
    layout(join(folder, "images/busybox"), layer(folder, extra));
    try {
      await world.up();
    } catch (cause) {
      await world.end();
      throw cause;
    }
    return world;
  }

  /** Starts the program, on the folder and port that it had before. */
  async up(): Promise<void> {
    const env = join(this.folder, "data/env");
    rmSync(env, { force: true });
    const output = openSync(join(this.folder, "dev.txt"), "a");
    const started = spawn(
      PROGRAM,
      ["dev", "--data", join(this.folder, "data"), "--listen", `${this.host}:${this.port}`, "--images", join(this.folder, "images"), "--cpu", "16"],
      { stdio: ["ignore", output, output] },
    );
    this.process = started;
    await until("the server answers", async () => {
      if (started.exitCode !== null) throw new Error(`it ended: ${this.output()}`);
      if (!existsSync(env)) return false;
      const text = readFileSync(env, "utf8");
      this.address = /BUILDFLOW_ADDR=(\S+)/.exec(text)?.[1] ?? "";
      this.token = /BUILDFLOW_TOKEN=(\S+)/.exec(text)?.[1] ?? "";
      const ready = await fetch(`${this.address}/readyz`).then((r) => r.json() as Promise<{ leader?: string }>, () => undefined);
      if (!ready?.leader) return false;
      const { nodes } = (await this.api("GET", "/nodes")) as { nodes: { connected: boolean }[] };
      return nodes.some((node) => node.connected);
    });
  }

  output(): string {
    return readFileSync(join(this.folder, "dev.txt"), "utf8").replaceAll(this.token || "\0", "<token>");
  }

  /** Ends the program as a crash would; steps go on. */
  async kill(): Promise<void> {
    await ended(this.process, "SIGKILL");
  }

  async stop(): Promise<void> {
    await ended(this.process, "SIGTERM");
  }

  /** Ends the runs that go on, then the program, then the folder. */
  async end(): Promise<void> {
    if (this.process && this.process.exitCode === null && this.process.signalCode === null) {
      await this.calm().catch(() => {});
      await this.stop();
    }
    rmSync(this.folder, { recursive: true, force: true });
  }

  private async calm(): Promise<void> {
    for (const status of ["running", "queued"]) {
      const { runs } = (await this.api("GET", `/runs?status=${status}&limit=500`)) as { runs: Made[] };
      for (const run of runs) await this.api("POST", `/runs/${run.run_id}/cancel`);
    }
    await until("nothing runs", async () => {
      const { nodes } = (await this.api("GET", "/nodes")) as { nodes: { allocations: number }[] };
      return nodes.every((node) => node.allocations === 0);
    });
  }

  async api(method: string, path: string, body?: unknown): Promise<unknown> {
    const response = await fetch(`${this.address}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${this.token}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === "" ? undefined : JSON.parse(text);
  }

  /** A repository with this pipeline file, registered under `name`, and a run of it. */
  async run(name: string, file: string, commit: { message?: string; author?: string; files?: Record<string, string> } = {}): Promise<Made> {
    this.commit(name, file, commit);
    const repository = `file://${join(this.folder, "repositories", name)}`;
    await this.api("PUT", `/pipelines/default/${name}`, { repository });
    return (await this.api("POST", `/pipelines/default/${name}/runs`, { branch: "main", force: true })) as Made;
  }

  private commit(name: string, file: string, { message = "A commit", author = "Ada Example", files = {} }: { message?: string; author?: string; files?: Record<string, string> }): void {
    const folder = join(this.folder, "repositories", name);
    mkdirSync(folder, { recursive: true });
    const git = (...args: string[]) => {
      const done = spawnSync("git", ["-C", folder, "-c", `user.name=${author}`, "-c", "user.email=someone@example.org", ...args], { encoding: "utf8" });
      if (done.status !== 0) throw new Error(`git ${args.join(" ")}: ${done.stderr}`);
    };
    if (!existsSync(join(folder, ".git"))) git("init", "-q", "-b", "main");
    writeFileSync(join(folder, ".buildflow.yml"), file);
    for (const [path, text] of Object.entries(files)) writeFileSync(join(folder, path), text);
    git("add", "-A");
    git("commit", "-q", "--allow-empty", "-m", message);
  }

  async status(run: string): Promise<string> {
    return ((await this.api("GET", `/runs/${run}`)) as { status: string }).status;
  }

  async over(run: string): Promise<string> {
    let status = "";
    await until(`run ${run} is over`, async () => {
      status = await this.status(run);
      return !["queued", "running"].includes(status);
    });
    return status;
  }
}

/** Asks until it is so. */
export async function until(what: string, is: () => Promise<boolean>, patience = PATIENCE_MS): Promise<void> {
  const end = Date.now() + patience;
  while (!(await is())) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((then) => setTimeout(then, 50));
  }
}

async function ended(process: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (!process || process.exitCode !== null || process.signalCode !== null) return;
  const exit = new Promise((then) => process.once("exit", then));
  process.kill(signal);
  await exit;
}

function freePort(): Promise<number> {
  return new Promise((then, fail) => {
    const server = createServer();
    server.once("error", fail);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => then(port));
    });
  });
}

const APPLETS = ["sh", "cat", "echo", "true", "false", "sleep", "seq", "printf", "date", "test", "head", "tail", "yes", "awk", "dd", "tr"];

/** A tar with busybox and the folders that a root file system has. */
function layer(folder: string, extra: Record<string, string>): Buffer {
  const root = join(folder, "root");
  mkdirSync(join(root, "bin"), { recursive: true });
  for (const [name, path] of Object.entries(extra)) cpSync(path, join(root, "bin", name));
  const script = `set -e; for d in bin dev etc proc root sys tmp workspace; do mkdir -p "$0/$d"; done; cp /bin/busybox "$0/bin/busybox"
    for a in ${APPLETS.join(" ")}; do ln -sf busybox "$0/bin/$a"; done; printf 'root:x:0:0:root:/root:/bin/sh\\n' >"$0/etc/passwd"
    tar --numeric-owner --owner=0 --group=0 -C "$0" -cf "$0.tar" . ; rm -rf "$0"`;
  const done = spawnSync("sh", ["-c", script, root], { encoding: "utf8" });
  if (done.status !== 0) throw new Error(`the image's layer: ${done.stderr}`);
  const tar = readFileSync(`${root}.tar`);
  rmSync(`${root}.tar`);
  return tar;
}

/** An OCI image layout of one layer. */
export function layout(folder: string, tar: Buffer): void {
  mkdirSync(join(folder, "blobs/sha256"), { recursive: true });
  const add = (bytes: Buffer) => {
    const digest = createHash("sha256").update(bytes).digest("hex");
    writeFileSync(join(folder, "blobs/sha256", digest), bytes);
    return { digest: `sha256:${digest}`, size: bytes.length };
  };
  const json = (value: unknown) => Buffer.from(JSON.stringify(value));
  const layer = add(tar);
  const architecture = process.arch === "x64" ? "amd64" : "arm64";
  const config = add(json({ architecture, os: "linux", config: { Env: ["PATH=/bin"] }, rootfs: { type: "layers", diff_ids: [layer.digest] } }));
  const manifest = add(
    json({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: { mediaType: "application/vnd.oci.image.config.v1+json", ...config },
      layers: [{ mediaType: "application/vnd.oci.image.layer.v1.tar", ...layer }],
    }),
  );
  writeFileSync(
    join(folder, "index.json"),
    JSON.stringify({ schemaVersion: 2, manifests: [{ mediaType: "application/vnd.oci.image.manifest.v1+json", ...manifest }] }),
  );
  writeFileSync(join(folder, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
}

/** The keys of a step as in a pipeline file. */
export type Keys = Record<string, unknown>;

/** A pipeline file: stages, their steps, the keys of each. JSON is YAML too. */
export function pipeline(stages: Record<string, Record<string, Keys>>): string {
  const resources = { cpu: "100m", memory: "64Mi", disk: "32Mi" };
  const file = {
    defaults: { image: "oci:busybox", checkout: false, timeout: "10m", resources },
    stages: Object.entries(stages).map(([name, steps]) => ({
      name,
      steps: Object.entries(steps).map(([step, keys]) => ({ name: step, ...keys })),
    })),
  };
  return `${JSON.stringify(file, null, 1)}\n`;
}
