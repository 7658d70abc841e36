// What all views share: where we are, who is logged in, the clock, and what is said at the edge of
// the screen. Not here: any view.

import { effect, signal } from "@preact/signals";
import { api, Refused, whenLoggedOut } from "./api/client";
import type { Session } from "./api/types";
import { routeOf, type Route } from "./route";

export const route = signal<Route>(routeOf(location));

/** `undefined`: not known yet; `null`: nobody. */
export const session = signal<Session | null | undefined>(undefined);

/** The present, for relative times; moves once a second while somebody looks. */
export const now = signal(Date.now());

/** One sentence that goes away by itself. */
export const notice = signal<{ text: string; isBad: boolean } | undefined>(undefined);

/** The server does not answer at the moment. */
export const isOffline = signal(false);

export type Theme = "system" | "light" | "dark";
const THEMES: readonly Theme[] = ["system", "light", "dark"];
const THEME_KEY = "buildflow-theme";
export const theme = signal<Theme>(storedTheme());

/** How long a notice stands. */
const NOTICE_MS = 6_000;

/** Goes to an address of this page. */
export function go(path: string, how: "push" | "replace" = "push"): void {
  if (how === "push") history.pushState(null, "", path);
  else history.replaceState(history.state, "", path);
  route.value = routeOf(location);
  if (how === "push") window.scrollTo(0, 0);
}

export function say(text: string, isBad = false): void {
  const said = { text, isBad };
  notice.value = said;
  window.setTimeout(() => {
    if (notice.value === said) notice.value = undefined;
  }, NOTICE_MS);
}

/** Does something and says what went wrong, if it did. */
export async function trying(what: () => Promise<void>): Promise<void> {
  try {
    await what();
  } catch (cause) {
    if (!(cause instanceof Refused)) throw cause;
    say(cause.message, true);
  }
}

/** True when this server does what `METHOD /path` below `/api/v1` says. */
export function supports(operation: string): boolean {
  const known = session.value;
  return !!known && !known.not_yet.includes(operation);
}

export function nextTheme(): void {
  theme.value = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length]!;
  say(`Colours: ${theme.value === "system" ? "as the system" : theme.value}`);
}

export async function logOut(): Promise<void> {
  await trying(async () => {
    await api.logOut();
    session.value = null;
    go("/login");
  });
}

/** Starts what runs as long as the page does. */
export function begin(): void {
  whenLoggedOut(() => {
    if (session.value !== undefined) session.value = null;
  });
  window.addEventListener("popstate", () => (route.value = routeOf(location)));
  window.addEventListener("hashchange", () => (route.value = routeOf(location)));
  document.addEventListener("click", followLink);
  window.setInterval(() => {
    if (!document.hidden) now.value = Date.now();
  }, 1_000);
  effect(() => {
    const chosen = theme.value;
    if (chosen === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    keepTheme(chosen);
  });
  void whoIsThere();
}

/** Asks until the server answers who is logged in. */
async function whoIsThere(): Promise<void> {
  for (;;) {
    try {
      session.value = await api.session();
      isOffline.value = false;
      return;
    } catch (cause) {
      if (cause instanceof Refused && (cause.status === 401 || cause.status === 403)) {
        session.value = null;
        return;
      }
      isOffline.value = true;
      await new Promise((then) => window.setTimeout(then, 1_000));
    }
  }
}

/** A plain click on a link of this page changes the view without loading anything. */
function followLink(event: MouseEvent): void {
  const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!isPlain || event.defaultPrevented) return;
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
  if (link.pathname.startsWith("/api/")) return;
  event.preventDefault();
  go(link.pathname + link.search + link.hash);
}

function storedTheme(): Theme {
  try {
    const kept = localStorage.getItem(THEME_KEY) as Theme | null;
    return kept && THEMES.includes(kept) ? kept : "system";
  } catch {
    return "system";
  }
}

function keepTheme(chosen: Theme): void {
  try {
    localStorage.setItem(THEME_KEY, chosen);
  } catch {
    // A browser that keeps nothing shows the system's colours the next time.
  }
}
