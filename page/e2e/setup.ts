// What every test in the browser has: the one server of all of them, and a page that is logged in
// and reports whatever goes wrong in it.

import { expect, test as base, type Page } from "@playwright/test";
import { existsSync, readFileSync } from "node:fs";
import { World } from "./world";

interface Has {
  /** A page that is logged in; the test fails if a script of it fails or its rules are broken. */
  page: Page;
  /** What went wrong in the page; a test that expects something takes it out. */
  wrongs: string[];
}

export const test = base.extend<Has, { world: World }>({
  world: [
    async ({}, use) => {
      const world = await World.start();
      await use(world);
      await world.end();
    },
    { scope: "worker", timeout: 180_000 },
  ],
  wrongs: async ({}, use) => {
    const wrongs: string[] = [];
    await use(wrongs);
    expect(wrongs).toEqual([]);
  },
  page: async ({ page, world, wrongs }, use) => {
    watch(page, wrongs);
    await logIn(page, world);
    if (process.env.PAGE_DIST) await fromFolder(page, process.env.PAGE_DIST);
    await use(page);
  },
});

export { expect };

/** For work on the page: its files from a folder, with the server's rules, without building the program anew. */
async function fromFolder(page: Page, folder: string): Promise<void> {
  await page.route((url) => !url.pathname.startsWith("/api/"), async (route) => {
    const path = new URL(route.request().url()).pathname;
    const isFile = path !== "/" && existsSync(folder + path);
    const kind = path.endsWith(".js") ? "text/javascript" : path.endsWith(".css") ? "text/css" : "image/svg+xml";
    if (isFile) await route.fulfill({ body: readFileSync(folder + path), contentType: kind });
    else await route.fulfill({ response: await route.fetch(), body: readFileSync(`${folder}/index.html`) });
  });
}

/** As the server sets it. */
export async function logIn(page: Page, world: World): Promise<void> {
  const { hostname, port } = new URL(world.address);
  const cookie = { name: `buildflow-${port}`, value: world.token, domain: hostname, path: "/api/", httpOnly: true, sameSite: "Strict" as const };
  await page.context().addCookies([cookie]);
}

export function watch(page: Page, wrongs: string[]): void {
  page.on("pageerror", (error) => wrongs.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => {
    wrongs.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("console", (message) => {
    if (message.type() !== "error") return;
    // That a request failed is what some tests are about; the page says it itself.
    if (!/Failed to load resource|ERR_/.test(message.text())) wrongs.push(`console: ${message.text()}`);
  });
}

/** The text of a line of the log that is on the screen. */
export function line(page: Page, number: number) {
  return page.locator(`.line[data-line="${number}"] .tx`);
}

/** How many lines the page knows of. */
export async function total(page: Page): Promise<number> {
  return Number(await page.locator(".log").getAttribute("data-total"));
}

/** The number of the first line that is wholly on the screen. */
export function first(page: Page): Promise<number> {
  return page.locator(".log").evaluate((log) => {
    const top = log.getBoundingClientRect().top;
    const lines = [...log.querySelectorAll<HTMLElement>(".line")];
    return Number(lines.find((line) => line.getBoundingClientRect().top >= top - 1)?.dataset.line);
  });
}
