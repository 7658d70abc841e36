// The page as a person uses it: logging in, runs, one run, pipelines, nodes, keys, colours.

import { expect, logIn, test, watch } from "./setup";
import { pipeline, until } from "./world";

const quick = pipeline({ build: { compile: { run: "echo compiled" } }, test: { unit: { run: "echo tested" } } });

test("logging in: a token for a cookie that no script sees, and back to where one wanted to go", async ({ browser, world, wrongs }) => {
  const context = await browser.newContext();
  const page = await context.newPage();
  watch(page, wrongs);
  await page.goto(`${world.address}/nodes?x=1`);
  await page.getByLabel("Token").fill("bf_wrong");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("alert")).toContainText("not known");
  await page.getByLabel("Token").fill(world.token);
  await page.getByRole("button", { name: "Log in" }).click();
  await expect(page.getByRole("heading", { name: "Nodes" })).toBeVisible();
  expect(new URL(page.url()).pathname).toBe("/nodes");
  const [cookie] = await context.cookies(`${world.address}/api/v1/session`);
  expect(cookie).toMatchObject({ httpOnly: true, sameSite: "Strict", path: "/api/" });
  expect(await page.evaluate(() => document.cookie)).toBe("");
  const kept = await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }));
  expect(kept).not.toContain("bf_");

  await page.reload();
  await expect(page.getByRole("heading", { name: "Nodes" })).toBeVisible();
  await page.getByRole("button", { name: "Log out" }).click();
  await expect(page.getByLabel("Token")).toBeVisible();
  await page.goto(`${world.address}/runs`);
  await expect(page.getByLabel("Token")).toBeVisible();

  await page.goto(`${world.address}/login?next=%2Fpipelines#token=${world.token}`);
  await expect(page.getByRole("heading", { name: "Pipelines" })).toBeVisible();
  expect(page.url()).toBe(`${world.address}/pipelines`);
  await context.close();
});

test("a session that ends while the page is open leads to the log-in", async ({ page, world }) => {
  await page.goto(`${world.address}/runs`);
  await expect(page.getByRole("search")).toBeVisible();
  await page.context().clearCookies();
  await expect(page.getByLabel("Token")).toBeVisible();
  await logIn(page, world);
});

test("a run changes before one's eyes, from its first step to its end", async ({ page, world }) => {
  const file = pipeline({
    build: { compile: { run: "sleep 2; echo compiled" }, assets: { run: "echo drawn" } },
    test: { unit: { run: "sleep 1; echo tested" } },
  });
  const made = await world.run("live", file, { message: "Live run" });
  await page.goto(made.web_url);
  await expect(page.getByRole("heading", { level: 1 })).toHaveText("Live run");
  const seen = await page.evaluate(
    () =>
      new Promise<string[]>((then) => {
        const all = new Set<string>();
        const look = () => {
          for (const step of document.querySelectorAll<HTMLElement>(".graph-step")) all.add(`${step.dataset.step} ${step.dataset.status}`);
          if (all.has("unit success")) then([...all]);
        };
        new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
        look();
      }),
  );
  expect(seen).toContain("compile running");
  expect(seen).toContain("unit pending");
  expect(seen).toContain("unit success");
  await expect(page.locator(".head .badge")).toHaveText("succeeded");
  await expect(page).toHaveTitle(/^succeeded: live #1/);
  for (const step of ["compile", "assets", "unit"]) {
    await expect(page.locator(`.fall[data-step=${step}]`)).toHaveAttribute("data-status", "success");
    await expect(page.locator(`.fall[data-step=${step}] .part.runs`)).toHaveCount(1);
  }
  await expect(page.getByRole("button", { name: "Cancel run" })).toHaveCount(0);
});

test("what went wrong stands in one sentence with the first error line, which is a link", async ({ page, world }) => {
  const script = "for i in $(seq 1 200); do echo case $i ok; done; printf '\\033[31merror\\033[0m: case 201: 4 is not 5\\n'; echo more; exit 3";
  const file = pipeline({ test: { unit: { run: ["echo first", { name: "tests", run: script }] } }, later: { ship: { run: "echo never" } } });
  const made = await world.run("broken", file);
  expect(await world.over(made.run_id)).toBe("failed");
  await page.goto(made.web_url);
  const failures = page.getByRole("region", { name: "What went wrong" });
  await expect(failures).toContainText(/unit: .*exit code 3/);
  const link = failures.locator(".error-line");
  await expect(link).toHaveText(/204.*error: case 201: 4 is not 5/);
  await expect(page.locator(".graph-step[data-step=ship]")).toHaveAttribute("data-status", "skipped");
  await link.click();
  await expect(page.locator('.line.chosen[data-line="204"]')).toContainText("error: case 201");
  await expect(page.locator('.line.chosen[data-line="204"]')).toBeInViewport();
  expect(new URL(page.url()).hash).toBe("#L204");
});

test("a pipeline file that is wrong is a failed run with its findings", async ({ page, world }) => {
  const made = await world.run("invalid", "stages: [{ name: a, steps: [{ name: b, image: 'oci:x', script: x }] }]\n");
  await page.goto(made.web_url);
  const failures = page.getByRole("region", { name: "What went wrong" });
  await expect(failures).toContainText("is not valid");
  await expect(failures.locator(".findings li").first()).toContainText("script");
});

test("why a step waits is said in the scheduler's words, and the run can be cancelled", async ({ page, world }) => {
  const file = pipeline({ build: { huge: { resources: { cpu: 64 }, run: "echo never" } }, test: { unit: { run: "echo never" } } });
  const made = await world.run("waiting", file);
  await page.goto(`${made.web_url}/steps/huge`);
  const explained = page.getByRole("region", { name: "Why it waits" });
  await expect(explained).toContainText("Asks for 64 cores");
  await expect(explained).toContainText(/cpu|CPU|cores/);
  await expect(explained.locator(".verdicts li")).toHaveCount(1);
  await page.keyboard.press("j");
  await expect(page.getByRole("heading", { level: 1, name: "unit" })).toBeVisible();
  await expect(explained).toContainText("waits for huge");
  await page.keyboard.press("u");
  await page.getByRole("button", { name: "Cancel run" }).click();
  await expect(page.locator(".head .badge")).toHaveText("cancelled");
  await expect(page.locator(".graph-step[data-step=huge]")).toHaveAttribute("data-status", "cancelled");
});

test("runs are narrowed by what stands in the address", async ({ page, world }) => {
  const good = await world.run("good", quick, { message: "A good one", author: "Grace Example" });
  const bad = await world.run("bad", pipeline({ a: { b: { run: "exit 1" } } }), { message: "A bad one" });
  await world.over(good.run_id);
  await world.over(bad.run_id);
  const row = (run: { run_id: string }) => page.locator(`tr[data-run="${run.run_id}"]`);
  await page.goto(`${world.address}/`);
  await expect(row(good)).toContainText("A good one");
  await expect(row(bad)).toBeVisible();
  await page.getByRole("group", { name: "Status" }).getByRole("button", { name: "failed" }).click();
  await expect(row(good)).toHaveCount(0);
  await expect(row(bad)).toBeVisible();
  expect(page.url()).toContain("status=failed");
  await page.goto(`${world.address}/runs?person=grace`);
  await expect(row(good)).toBeVisible();
  await expect(row(bad)).toHaveCount(0);
  await page.getByLabel("Person").fill("ada");
  await expect(row(bad)).toBeVisible();
  await expect(row(good)).toHaveCount(0);
  await page.goto(`${world.address}/runs?pipeline=default%2Fgood`);
  await expect(row(good)).toBeVisible();
  await expect(row(bad)).toHaveCount(0);
  await page.getByLabel("Branch").fill("no-such-branch");
  await expect(page.getByText("No run is like that.")).toBeVisible();
  await page.getByRole("link", { name: "Show all" }).click();
  await expect(row(bad)).toBeVisible();
});

test("a run that begins appears in the list by itself", async ({ page, world }) => {
  await page.goto(`${world.address}/runs`);
  await expect(page.getByRole("search")).toBeVisible();
  const made = await world.run("appears", quick);
  await expect(page.locator(`tr[data-run="${made.run_id}"]`)).toHaveAttribute("data-status", "success");
});

test("pipelines: a list, one of them, and starting a run", async ({ page, world }) => {
  await world.over((await world.run("startable", quick, { message: "Startable" })).run_id);
  await page.goto(`${world.address}/pipelines`);
  await expect(page.getByRole("row", { name: /startable/ })).toContainText("Startable");
  await page.getByRole("link", { name: "startable", exact: true }).click();
  await expect(page.getByRole("heading", { level: 1 })).toContainText("startable");
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await expect(page).toHaveURL(/\/runs\/[0-9a-z]+$/);
  await expect(page.locator(".crumbs")).toContainText("#2");
  await page.goto(`${world.address}/pipelines/default/startable`);
  await page.getByLabel("Branch to run").fill("no-such-branch");
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await expect(page.locator(".notice.bad")).toContainText("no-such-branch");
});

test("nodes show their free room, and what runs on one", async ({ page, world }) => {
  const made = await world.run("roomy", pipeline({ a: { holds: { resources: { cpu: 4 }, run: "sleep 600" } } }));
  await until("it runs", async () => (await world.status(made.run_id)) === "running");
  await page.goto(`${world.address}/nodes`);
  await expect(page.getByRole("img", { name: /^CPU: 12 cores free of 16 cores$/ })).toBeVisible();
  await expect(page.locator("tbody tr")).toContainText("takes steps");
  await page.locator("tbody a").first().click();
  await expect(page.getByRole("link", { name: "holds" })).toBeVisible();
  await page.getByRole("link", { name: "holds" }).click();
  await expect(page.getByRole("heading", { level: 1, name: "holds" })).toBeVisible();
  await world.api("POST", `/runs/${made.run_id}/cancel`);
  await expect(page.locator(".step-head .badge")).toHaveText("cancelled");
});

test("everything can be done by keys, and a sheet lists them", async ({ page, world }) => {
  const made = await world.run("keys", quick);
  await world.over(made.run_id);
  await page.goto(`${world.address}/pipelines`);
  await expect(page.getByRole("heading", { name: "Pipelines" })).toBeVisible();
  await page.keyboard.press("Tab");
  await expect(page.getByRole("link", { name: "Skip to the content" })).toBeFocused();
  await page.keyboard.press("?");
  const sheet = page.getByRole("dialog", { name: "Keys" });
  await expect(sheet).toBeVisible();
  await expect(sheet).toContainText("Go to the runs");
  await page.keyboard.press("Escape");
  await expect(sheet).toBeHidden();
  await page.keyboard.press("g");
  await page.keyboard.press("r");
  await expect(page).toHaveURL(/\/runs$/);
  await expect(page.locator("tr[data-run]").first()).toBeVisible();
  await page.keyboard.press("j");
  await expect(page.locator("[data-row]").first()).toBeFocused();
  await page.keyboard.press("j");
  await expect(page.locator("[data-row]").nth(1)).toBeFocused();
  await page.keyboard.press("k");
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(/\/runs\/[0-9a-z]+$/);
  await expect(page.locator(".waterfall")).toBeVisible();
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(/\/steps\/compile$/);
  await page.keyboard.press("/");
  await expect(page.getByLabel("Search in the log")).toBeFocused();
  // What is typed into a field is no command.
  await page.keyboard.type("gn?t");
  await expect(page.getByLabel("Search in the log")).toHaveValue("gn?t");
  await expect(sheet).toBeHidden();
  await page.goBack();
  await expect(page.locator(".waterfall")).toBeVisible();
});

test("light, dark, or as the system, and it is remembered", async ({ page, world }) => {
  const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const brightness = async () => {
    const [r, g, b] = (await ground()).match(/\d+/g)!.map(Number);
    return (r! + g! + b!) / 3;
  };
  await page.emulateMedia({ colorScheme: "light" });
  await page.goto(`${world.address}/nodes`);
  await expect(page.getByRole("heading", { name: "Nodes" })).toBeVisible();
  expect(await brightness()).toBeGreaterThan(200);
  await page.emulateMedia({ colorScheme: "dark" });
  expect(await brightness()).toBeLessThan(60);
  await page.keyboard.press("t");
  expect(await brightness()).toBeGreaterThan(200);
  await page.keyboard.press("t");
  expect(await brightness()).toBeLessThan(60);
  await page.emulateMedia({ colorScheme: "light" });
  await page.reload();
  await expect(page.getByRole("heading", { name: "Nodes" })).toBeVisible();
  expect(await brightness()).toBeLessThan(60);
});

test("text can be read: contrast of at least 4.5 to 1 in both colours", async ({ page, world }) => {
  const made = await world.run("contrast", pipeline({ a: { ok: { run: "printf '\\033[31mred \\033[32mgreen \\033[33myellow \\033[34mblue \\033[35mpink \\033[36mcyan\\033[0m\\n'" }, no: { run: "exit 1" } } }));
  await world.over(made.run_id);
  for (const scheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme: scheme });
    for (const path of ["/runs", `/runs/${made.run_id}`, `/runs/${made.run_id}/steps/ok`, "/nodes", "/pipelines"]) {
      await page.goto(world.address + path);
      await expect(page.locator("main h1, .line").first()).toBeAttached();
      await expect(page.locator("tr[data-run], .waterfall, .line, tbody tr").first()).toBeVisible();
      expect(await page.evaluate(tooFaint), `${path} in ${scheme}`).toEqual([]);
    }
  }
});

/** Texts whose colour is too near to what is behind them. */
function tooFaint(): string[] {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true })!;
  const rgba = (colour: string): number[] => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const over = (top: number[], under: number[]) => [0, 1, 2].map((i) => (top[i]! * top[3]!) / 255 + under[i]! * (1 - top[3]! / 255));
  const ground = (element: Element | null): number[] => {
    if (!element) return [255, 255, 255];
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 255 ? own.slice(0, 3) : over(own, ground(element.parentElement));
  };
  const light = (c: number[]) => {
    const [r, g, b] = c.map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
  };
  const faint: string[] = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const parent = walk.currentNode.parentElement!;
    const text = walk.currentNode.textContent!.trim();
    if (text === "" || !parent.checkVisibility() || parent.closest(".unseen, .skip, select, noscript, :disabled")) continue;
    const under = ground(parent);
    const ink = over(rgba(getComputedStyle(parent).color), under);
    const [a, b] = [light(ink), light(under)].sort((x, y) => y - x);
    const contrast = (a! + 0.05) / (b! + 0.05);
    if (contrast < 4.5) faint.push(`${text.slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return [...new Set(faint)];
}

test("whatever can be pressed has a name, and every picture that says something too", async ({ page, world }) => {
  const made = await world.run("named", quick);
  await world.over(made.run_id);
  for (const path of ["/runs", `/runs/${made.run_id}`, `/runs/${made.run_id}/steps/compile`, "/nodes", "/pipelines", "/pipelines/default/named"]) {
    await page.goto(world.address + path);
    await expect(page.locator("main h1").first()).toBeAttached();
    await expect(page.locator("tr[data-run], .waterfall, .line, tbody tr").first()).toBeVisible();
    const nameless = await page.evaluate(() => {
      const named = (e: Element) => (e.getAttribute("aria-label") ?? e.getAttribute("title") ?? e.textContent ?? "").trim() !== "" || !!e.querySelector("title");
      const pressed = [...document.querySelectorAll("a, button, summary")].filter((e) => !named(e));
      const fields = [...document.querySelectorAll("input, select")].filter((e) => !e.getAttribute("aria-label") && !e.closest("label"));
      const pictures = [...document.querySelectorAll("svg")].filter((e) => e.getAttribute("aria-hidden") !== "true" && !e.getAttribute("aria-label"));
      return [...pressed, ...fields, ...pictures].map((e) => e.outerHTML.slice(0, 120));
    });
    expect(nameless, path).toEqual([]);
  }
});

test("an address without a view says so", async ({ page, world }) => {
  const answer = await page.goto(`${world.address}/no/such/view`);
  expect(answer?.status()).toBe(404);
  await expect(page.getByRole("heading", { name: "Nothing here" })).toBeVisible();
  await page.goto(`${world.address}/runs/01aaaaaaaaaaaaaaaaaaaaaaaa`);
  await expect(page.getByRole("heading", { name: "Nothing here" })).toBeVisible();
});
