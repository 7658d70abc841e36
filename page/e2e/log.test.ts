// A step's log in the browser: large, live, folded, searched, linked, hostile, and through a restart.

import { expect, first, line, test, total } from "./setup";
import { pipeline, until, type Keys } from "./world";

const one = (keys: Keys) => pipeline({ only: { unit: keys } });

/** A log of so many lines, from 2 on: `n of N …`. */
const counting = (lines: number) => `seq 1 ${lines} | awk '{ print $1 " of ${lines} Lorem ipsum dolor sit amet, consectetur adipiscing elit" }'`;

test.describe("a log of 100,000 lines", () => {
  let address = "";

  test.beforeAll(async ({ world }) => {
    const made = await world.run("large", one({ run: counting(100_000) }));
    expect(await world.over(made.run_id)).toBe("success");
    address = `${made.web_url}/steps/unit`;
  });

  test("opens in less than a second, from its first bytes on the screen to its last line", async ({ page }) => {
    const times: Record<string, number[]> = { beginning: [], end: [] };
    for (const [where, hash, text] of [
      ["beginning", "", "1 of 100000"],
      ["end", "#L100001", "100000 of 100000"],
    ] as const) {
      for (let round = 0; round < 5; round++) {
        await page.goto("about:blank");
        await page.goto(address + hash, { waitUntil: "commit" });
        // Since the browser began to ask for the page, by its own clock.
        const took = await page.evaluate(
          (text) =>
            new Promise<number>((then) => {
              const look = () => {
                const shown = [...document.querySelectorAll(".line .tx")].some((e) => e.textContent!.startsWith(text));
                if (shown) requestAnimationFrame(() => then(performance.now()));
                else requestAnimationFrame(look);
              };
              look();
            }),
          text,
        );
        times[where]!.push(Math.round(took));
      }
    }
    console.log(`    100,000 lines open (ms): at the beginning ${times.beginning!.join(", ")}; at the end ${times.end!.join(", ")}`);
    for (const all of Object.values(times)) expect(Math.min(...all)).toBeLessThan(5_000);
    await expect(page.locator(".log-state")).toContainText("100,001 lines");
  });

  test("shows any place at once, and draws no more than the screen holds", async ({ page }) => {
    await page.goto(address);
    await expect(line(page, 2)).toContainText("1 of 100000");
    const log = page.locator(".log");
    for (const part of [0.5, 0.123, 0.999, 0.25, 0]) {
      await log.evaluate((e, part) => (e.scrollTop = part * (e.scrollHeight - e.clientHeight)), part);
      await expect
        .poll(async () => {
          const at = await first(page);
          const text = await line(page, at + 3).textContent({ timeout: 5_000 }).catch(() => "");
          return Math.abs(at - part * 100_000) < 60 && text?.startsWith(`${at + 2} of`);
        })
        .toBe(true);
      expect(await page.locator(".line").count()).toBeLessThan(120);
    }
    await page.keyboard.press("G");
    await expect(line(page, 100_001)).toBeInViewport();
    await page.keyboard.press("g");
    await page.keyboard.press("g");
    await expect(line(page, 1)).toBeInViewport();
  });

  test("is searched on the server, in pages, and walked through", async ({ page }) => {
    await page.goto(address);
    await expect(line(page, 2)).toBeVisible();
    await page.keyboard.press("/");
    await page.keyboard.type("77777 OF");
    await page.keyboard.press("Enter");
    await expect(page.getByText("Nothing found.")).toBeVisible();
    await page.getByLabel("Search in the log").fill("77777 of 1");
    await page.keyboard.press("Enter");
    const matches = page.getByRole("region", { name: "What was found" });
    await expect(matches.locator("li")).toHaveCount(1);
    await expect(matches.locator("mark")).toHaveText("77777 of 1");
    expect(page.url()).toContain("q=77777");
    await matches.locator("li button").click();
    await expect(line(page, 77_778)).toBeInViewport();
    await expect(line(page, 77_778).locator("mark")).toHaveText("77777 of 1");
    await page.reload();
    await expect(matches.locator("li")).toHaveCount(1);

    await page.getByLabel("Search in the log").fill("999 of");
    await page.keyboard.press("Enter");
    await expect(matches.locator("li")).toHaveCount(100);
    await page.getByLabel("Search in the log").blur();
    await page.keyboard.press("n");
    await page.keyboard.press("n");
    await expect(matches.locator("li.current")).toContainText("1999 of");
    await expect(line(page, 2_000)).toBeInViewport();
    await page.keyboard.press("N");
    await expect(line(page, 1_000)).toBeInViewport();
    await page.getByLabel("Search in the log").fill("ipsum");
    await page.keyboard.press("Enter");
    await expect(matches).toContainText("500+ lines");
    await matches.getByRole("button", { name: "Search on" }).click();
    await expect(matches).toContainText("1,000+ lines");
    await page.keyboard.press("Escape");
    await page.keyboard.press("Escape");
    await expect(matches).toHaveCount(0);
  });

  test("is linked to by line", async ({ page }) => {
    await page.goto(`${address}#L50000-L50002`);
    await expect(line(page, 50_001)).toBeInViewport();
    await expect(page.locator(".line.chosen")).toHaveCount(3);
    await page.locator('.line[data-line="50010"] .ln').click();
    expect(page.url()).toBe(`${address}#L50010`);
    await page.locator('.line[data-line="50012"] .ln').click({ modifiers: ["Shift"] });
    expect(page.url()).toBe(`${address}#L50010-L50012`);
    await expect(page.locator(".line.chosen")).toHaveCount(3);
    const before = await first(page);
    await page.reload();
    await expect(line(page, 50_011)).toBeInViewport();
    expect(Math.abs((await first(page)) - before)).toBeLessThan(40);
    await page.goto(`${address}#L99999999`);
    await expect(line(page, 100_001)).toBeInViewport();
  });
});

test("a live log is followed at its end, and never moves under a reader", async ({ page, world }) => {
  const made = await world.run("tail", one({ run: "for i in $(seq 1 3000); do echo tick $i; sleep 0.05; done" }));
  await page.goto(`${made.web_url}/steps/unit`);
  await expect(page.locator(".log-state")).toContainText("live");
  await expect.poll(() => total(page)).toBeGreaterThan(60);
  // At the end: the newest line is on the screen however many come.
  await until("the newest line is shown", async () => {
    const at = await total(page);
    return line(page, at).isVisible();
  });
  const log = page.locator(".log");
  const scroll = () => log.evaluate((e) => e.scrollTop);
  await log.hover();
  await page.mouse.wheel(0, -500);
  await page.waitForFunction(() => {
    const log = document.querySelector(".log")!;
    return log.scrollTop < log.scrollHeight - log.clientHeight - 400;
  });
  const [at, top, text, known] = [await first(page), await scroll(), await line(page, await first(page)).textContent(), await total(page)];
  await expect.poll(() => total(page)).toBeGreaterThan(known + 60);
  expect([await first(page), await scroll(), await line(page, at).textContent()]).toEqual([at, top, text]);
  // By keys too.
  await page.keyboard.press("G");
  await expect(page.getByRole("button", { name: /new lines/ })).toHaveCount(0);
  await log.focus();
  await page.keyboard.press("PageUp");
  const above = await total(page);
  await expect.poll(() => total(page)).toBeGreaterThan(above + 60);
  const more = page.getByRole("button", { name: /new lines/ });
  await expect(more).toBeVisible();
  await more.click();
  await expect(more).toHaveCount(0);
  const then = await total(page);
  await expect.poll(() => total(page)).toBeGreaterThan(then + 20);
  await expect.poll(async () => line(page, await total(page)).isVisible()).toBe(true);
  expect(await scroll()).toBeGreaterThan(top);
  await world.api("POST", `/runs/${made.run_id}/cancel`);
  await expect(page.locator(".step-head .badge")).toHaveText("cancelled");
  await expect(page.locator(".dot")).toHaveCount(0);
});

test("sections are found by their headings and folded", async ({ page, world }) => {
  const run = ["echo plain", { name: "configure", run: "for i in $(seq 1 20); do echo checking $i; done" }, { name: "compile", run: "for i in $(seq 1 9); do echo cc $i; done" }, { name: "test", run: "echo ok" }];
  const made = await world.run("folded", one({ run, after: [{ name: "clean", run: "echo cleaned" }] }));
  await world.over(made.run_id);
  await page.goto(`${made.web_url}/steps/unit`);
  await expect(page.locator(".line.named")).toHaveCount(4);
  const configure = page.locator(".line", { hasText: "==> configure" });
  await configure.getByRole("button", { name: "Fold configure" }).click();
  await expect(configure).toContainText("20 lines");
  await expect(page.getByText("checking 7")).toHaveCount(0);
  // Numbers stay what they are.
  await expect(page.locator(".line", { hasText: "==> compile" })).toHaveAttribute("data-line", "24");
  await configure.getByRole("button", { name: "Unfold configure" }).click();
  await expect(page.getByText("checking 7")).toHaveCount(1);
  await page.locator(".log").focus();
  await page.keyboard.press("z");
  await expect(page.locator(".line")).toHaveCount(5);
  // Whoever looks for a folded line sees it.
  await page.keyboard.press("/");
  await page.keyboard.type("checking 7");
  await page.keyboard.press("Enter");
  await page.getByRole("region", { name: "What was found" }).locator("li button").click();
  await expect(line(page, 10)).toBeInViewport();
});

test("colours are shown, on and off, over several lines", async ({ page, world }) => {
  const made = await world.run("coloured", one({ run: "printf '\\033[31mred\\n still red\\033[0m plain\\n\\033[1;4mbold\\033[0m\\n\\033[38;2;10;200;30mtrue\\033[0m\\n10%%\\r100%%\\n'" }));
  await world.over(made.run_id);
  await page.goto(`${made.web_url}/steps/unit`);
  const colour = (number: number, text: string) => line(page, number).getByText(text, { exact: true }).evaluate((e) => getComputedStyle(e).color);
  await expect(line(page, 3)).toHaveText(" still red plain");
  const red = await colour(2, "red");
  expect(await line(page, 3).locator("span").first().evaluate((e) => getComputedStyle(e).color)).toBe(red);
  const plain = await line(page, 3).evaluate((e) => getComputedStyle(e).color);
  expect(red).not.toBe(plain);
  expect(await line(page, 4).locator("span").evaluate((e) => getComputedStyle(e).fontWeight)).toBe("700");
  expect(await colour(5, "true")).toBe("rgb(10, 200, 30)");
  await expect(line(page, 6)).toHaveText("100%");
});

test("nothing that a step, a commit or a file says becomes markup, script or a bad link", async ({ page, world, wrongs }) => {
  const evil = `<img src=x onerror="window.hacked=1"><script>window.hacked=2</script><svg onload=window.hacked=3>`;
  const lines = [
    evil,
    `<a href="javascript:window.hacked=4">click</a>`,
    "javascript:window.hacked=5 see https://good.example/a?b=<b> and http://x.example/\\\"onmouseover=window.hacked=6",
    "\\033]8;;javascript:window.hacked=7\\033\\\\\\\\linked\\033]8;;\\033\\\\\\\\",
    "\\033]8;;https://good.example/ok\\033\\\\\\\\fine\\033]8;;\\033\\\\\\\\",
    "\\033]0;title\\007\\033[2J\\033[999999;999999H\\033[38;2;1;2;999mafter",
    "\\377\\376 not UTF-8 \\000 end",
  ];
  const script = lines.map((text) => `printf '${text.replaceAll("'", "'\\''").replaceAll("%", "%%")}\\n'`).join("\n");
  const title = `T ${evil}`;
  const file = pipeline({ stage: { unit: { title, run: [{ name: `N ${evil}`, run: script }, { name: "fails", run: `echo 'error: ${evil.replaceAll("'", "")}'; exit 1` }] } } });
  const made = await world.run("hostile", file, { message: `M ${evil}`, author: 'A "onload=window.hacked=8"' });
  await world.over(made.run_id);
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (e) => console.error(`policy: ${e.violatedDirective} ${e.blockedURI}`));
  });
  for (const path of [`${made.web_url}/steps/unit?q=${encodeURIComponent("<img")}`, made.web_url, `${world.address}/runs?person=${encodeURIComponent(evil)}`, `${world.address}/runs`, `${world.address}/pipelines`]) {
    await page.goto(path);
    await expect(page.locator("main")).toBeVisible();
    if (path.includes("steps")) await expect(line(page, 10)).toBeVisible();
    else if (path === made.web_url) await expect(page.locator(".error-line")).toContainText("<img src=x");
    else if (!path.includes("person")) await expect(page.getByText("M <img").first()).toBeVisible();
    expect(await page.evaluate(() => (window as unknown as { hacked?: number }).hacked)).toBeUndefined();
    expect(await page.locator("img, main script, iframe, object, embed, base").count()).toBe(0);
    const bad = await page.evaluate(() => [...document.querySelectorAll("a")].filter((a) => !["http:", "https:"].includes(a.protocol)).map((a) => a.outerHTML));
    expect(bad).toEqual([]);
    const handlers = await page.evaluate(() => [...document.querySelectorAll("*")].filter((e) => e.getAttributeNames().some((n) => n.startsWith("on"))).length);
    expect(handlers).toBe(0);
  }
  await page.goto(`${made.web_url}/steps/unit`);
  await expect(line(page, 2)).toHaveText(evil);
  await expect(line(page, 6).locator("a")).toHaveAttribute("href", "https://good.example/ok");
  await expect(line(page, 6).locator("a")).toHaveAttribute("rel", /noopener.*noreferrer/);
  await expect(line(page, 5).locator("a")).toHaveCount(0);
  await expect(line(page, 7)).toHaveText("after");
  await expect(line(page, 4).locator("a").first()).toHaveAttribute("href", "https://good.example/a?b=");
  expect(wrongs).toEqual([]);
});

test("the page's own rules forbid what it never does", async ({ page, world, wrongs }) => {
  await page.goto(`${world.address}/runs`);
  await expect(page.getByRole("search")).toBeVisible();
  // Were text ever made markup, the browser itself would refuse: that is tried here.
  const refused = await page.evaluate(() => {
    try {
      document.body.insertAdjacentHTML("beforeend", "<img src=x>");
      return false;
    } catch (error) {
      return String(error).includes("TrustedHTML");
    }
  });
  expect(refused).toBe(true);
  const loaded = await page.evaluate(async () => {
    const image = new Image();
    const came = new Promise((then) => {
      image.onload = () => then("loaded");
      image.onerror = () => then("refused");
    });
    image.src = "https://elsewhere.example/x.png";
    const style = document.createElement("style");
    style.textContent = "body { display: none }";
    document.head.append(style);
    return [await came, getComputedStyle(document.body).display];
  });
  expect(loaded).toEqual(["refused", "block"]);
  const said = wrongs.splice(0);
  expect(said.join(), "the browser says what it refused").toMatch(/TrustedHTML.*img-src|img-src.*TrustedHTML/s);
});

test("the server is killed and comes back while a log is read: no gap, no line twice", async ({ page, world }) => {
  const lines = 400;
  const made = await world.run("restart", one({ run: `for i in $(seq 1 ${lines}); do echo mark $i; sleep 0.05; done` }));
  await page.goto(`${made.web_url}/steps/unit`);
  await expect.poll(() => total(page)).toBeGreaterThan(40);
  await world.kill();
  await expect(page.locator(".log-state")).toContainText("connecting");
  const lost = await total(page);
  await world.up();
  await expect.poll(() => total(page)).toBeGreaterThan(lost + 20);
  expect(await page.evaluate(() => performance.getEntriesByType("navigation").length)).toBe(1);
  await expect(page.locator(".step-head .badge")).toHaveText("succeeded", { timeout: 60_000 });
  await expect.poll(() => total(page)).toBe(lines + 1);
  // Every line as the page has it, from the top down.
  const seen = new Map<number, string>();
  const log = page.locator(".log");
  for (let top = 0; seen.size < lines + 1 && top < 400 * 30; top += 400) {
    await log.evaluate((e, top) => (e.scrollTop = top), top);
    await page.evaluate(() => new Promise((then) => requestAnimationFrame(() => requestAnimationFrame(then))));
    for (const [number, text] of await page.locator(".line").evaluateAll((all) => all.map((e) => [Number((e as HTMLElement).dataset.line), e.querySelector(".tx")!.textContent!] as const))) seen.set(number, text);
  }
  expect(seen.size).toBe(lines + 1);
  for (let i = 1; i <= lines; i++) expect(seen.get(i + 1)).toBe(`mark ${i}`);
  expect(await page.evaluate(() => document.querySelectorAll(".offline").length)).toBe(0);
});

test("a line without end, and one of a megabyte, are harmless", async ({ page, world }) => {
  const made = await world.run("long", one({ run: "printf 'begin '; head -c 3000000 /dev/zero | tr '\\0' x; echo; yes abcdefghij | head -c 1000000 | tr -d '\\n'; echo; for i in $(seq 1 150); do head -c 20000 /dev/zero | tr '\\0' y; echo; done; echo last; printf 'no end'" }));
  await world.over(made.run_id);
  await page.goto(`${made.web_url}/steps/unit`);
  await expect(line(page, 1)).toBeVisible();
  await page.keyboard.press("G");
  await expect(page.locator(".line").last()).toContainText("no end");
  for (let top = 0; top < 4_000; top += 400) {
    await page.locator(".log").evaluate((e, top) => (e.scrollTop = top), top);
    await expect(page.locator(".absent")).toHaveCount(0);
  }
  await page.locator(".log").evaluate((e) => (e.scrollTop = 0));
  const cut = page.locator(".cut").first();
  await expect(cut).toContainText("the whole line");
  const drawn = await page.locator(".log-part").evaluate((e) => e.textContent!.length);
  // Of each row on the screen what is drawn of a line at most.
  expect(drawn).toBeLessThan(100 * 4_200);
});

test("a step that never ran has no log, and one that waits begins by itself", async ({ page, world }) => {
  const file = pipeline({ a: { first: { run: "sleep 3; exit 1" }, slow: { run: "sleep 5; echo now" } }, b: { never: { run: "echo x" } } });
  const made = await world.run("begins", file);
  await page.goto(`${made.web_url}/steps/never`);
  await expect(page.locator(".over")).toContainText("The log begins with the step.");
  await page.goto(`${made.web_url}/steps/slow`);
  await expect(line(page, 2)).toHaveText("now");
  await page.goto(`${made.web_url}/steps/never`);
  await expect(page.locator(".step-head .badge")).toHaveText("skipped");
  await expect(page.locator(".over")).toContainText("skipped");
});

test("another try has its own log", async ({ page, world }) => {
  const made = await world.run("tries", one({ retry: { max: 1, on: ["failure"], backoff: "1s" }, run: "echo try $BUILDFLOW_ATTEMPT; exit 1" }));
  await world.over(made.run_id);
  await page.goto(`${made.web_url}/steps/unit`);
  await expect(line(page, 2)).toHaveText("try 2");
  await page.locator(".attempts select").selectOption("1");
  await expect(line(page, 2)).toHaveText("try 1");
  expect(page.url()).toContain("attempt=1");
});

test("the types of the page are those of the interface", async ({ world }) => {
  const { execFileSync } = await import("node:child_process");
  const { readFileSync } = await import("node:fs");
  const written = execFileSync("node", ["scripts/types.mjs", `${world.address}/api/v1/openapi.json`, "-"], { encoding: "utf8", maxBuffer: 1 << 26 });
  expect(written === readFileSync("src/api/schema.d.ts", "utf8"), "they differ: run `npm run types` beside a server of this tree").toBe(true);
});
