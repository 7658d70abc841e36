// The page's frame: who is logged in decides whether a view or the log-in is shown.

import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { begin, go, isOffline, logOut, nextTheme, notice, route, session, theme } from "./app";
import { isSheetOpen, listed, listen, type Key } from "./keys";
import { Logo } from "./parts/Logo";
import { Login } from "./views/Login";
import { Lost } from "./views/Lost";
import { NodeView } from "./views/Node";
import { Nodes } from "./views/Nodes";
import { PipelineView } from "./views/Pipeline";
import { Pipelines } from "./views/Pipelines";
import { RunView } from "./views/Run";
import { Runs } from "./views/Runs";
import { StepView } from "./views/Step";

function Page() {
  const where = route.value;
  if (session.value === undefined) return <Waiting />;
  if (where.view === "login" || session.value === null) return <Login />;
  return (
    <>
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <Bar />
      {isOffline.value && <Offline />}
      <main id="main" tabIndex={-1} class={`view-${where.view}`}>
        <View />
      </main>
      <Sheet />
      <Notice />
    </>
  );
}

function View() {
  const where = route.value;
  switch (where.view) {
    case "runs":
      return <Runs filters={where.filters} />;
    case "run":
      return <RunView key={where.run} id={where.run} />;
    case "step":
      return <StepView key={where.run} {...where} />;
    case "pipelines":
      return <Pipelines />;
    case "pipeline":
      return (
        <PipelineView key={`${where.team}/${where.pipeline}`} team={where.team} name={where.pipeline} filters={where.filters} />
      );
    case "nodes":
      return <Nodes />;
    case "node":
      return <NodeView key={where.node} name={where.node} />;
    case "login":
      return null;
    case "lost":
      return <Lost what="There is no view at this address." />;
  }
}

const PLACES = [
  { name: "Runs", path: "/runs", views: ["runs", "run", "step"] },
  { name: "Pipelines", path: "/pipelines", views: ["pipelines", "pipeline"] },
  { name: "Nodes", path: "/nodes", views: ["nodes", "node"] },
];

function Bar() {
  const themes = { system: "as the system", light: "light", dark: "dark" };
  return (
    <header class="bar">
      <a class="logo" href="/" aria-label="BuildFlow: all runs">
        <Logo />
        <span>BuildFlow</span>
      </a>
      <nav aria-label="Views">
        {PLACES.map((place) => (
          <a key={place.path} href={place.path} aria-current={place.views.includes(route.value.view) ? "page" : undefined}>
            {place.name}
          </a>
        ))}
      </nav>
      <div class="bar-end">
        <button type="button" class="quiet" onClick={() => (isSheetOpen.value = true)} aria-label="Keys" title="Keys (?)">
          <kbd>?</kbd>
        </button>
        <button type="button" class="quiet" onClick={nextTheme} title={`Colours: ${themes[theme.value]} (t)`} aria-label={`Colours: ${themes[theme.value]}. Change`}>
          <svg viewBox="0 0 16 16" width="16" height="16" class="icon" aria-hidden="true">
            <circle cx="8" cy="8" r="5.5" class="stroke" />
            <path d="M8 2.5a5.5 5.5 0 0 1 0 11z" class="fill" />
          </svg>
        </button>
        <span class="who" title={`Logged in with the token “${session.value?.name}”`}>
          {session.value?.name}
        </span>
        <button type="button" class="quiet" onClick={() => void logOut()}>
          Log out
        </button>
      </div>
    </header>
  );
}

function Offline() {
  return (
    <p class="offline" role="status">
      The server does not answer. What you see may be old; it is asked again every few seconds.
    </p>
  );
}

function Waiting() {
  return <p class="empty pad">{isOffline.value ? "The server does not answer; it is asked again." : ""}</p>;
}

function Notice() {
  const said = notice.value;
  return (
    <div class="notices" role="status" aria-live="polite">
      {said && <p class={said.isBad ? "notice bad" : "notice"}>{said.text}</p>}
    </div>
  );
}

/** The sheet of keys. */
function Sheet() {
  const dialog = useRef<HTMLDialogElement>(null);
  const isOpen = isSheetOpen.value;
  useEffect(() => {
    if (isOpen && !dialog.current?.open) dialog.current?.showModal();
    if (!isOpen && dialog.current?.open) dialog.current.close();
  }, [isOpen]);
  const { here, everywhere } = listed();
  return (
    <dialog ref={dialog} class="sheet" aria-labelledby="sheet-title" onClose={() => (isSheetOpen.value = false)} onClick={(e) => e.target === dialog.current && (isSheetOpen.value = false)}>
      <div class="sheet-head">
        <h2 id="sheet-title">Keys</h2>
        <button type="button" class="quiet" onClick={() => (isSheetOpen.value = false)}>
          Close
        </button>
      </div>
      {here.length > 0 && <Keys title="In this view" keys={here} />}
      <Keys title="Everywhere" keys={everywhere} />
    </dialog>
  );
}

function Keys({ title, keys }: { title: string; keys: Key[] }) {
  return (
    <section>
      <h3>{title}</h3>
      <dl class="keys">
        {keys.map((key) => (
          <div key={key.keys}>
            <dt>
              {key.keys.split(" ").map((k) => (
                <kbd key={k}>{shown(k)}</kbd>
              ))}
            </dt>
            <dd>{key.what}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function shown(key: string): string {
  return { Escape: "Esc", ArrowUp: "↑", ArrowDown: "↓" }[key] ?? key;
}

begin();
listen([
  { keys: "?", what: "This sheet", act: () => (isSheetOpen.value = !isSheetOpen.value) },
  { keys: "g r", what: "Go to the runs", act: () => go("/runs") },
  { keys: "g p", what: "Go to the pipelines", act: () => go("/pipelines") },
  { keys: "g n", what: "Go to the nodes", act: () => go("/nodes") },
  { keys: "t", what: "Light, dark, or as the system", act: nextTheme },
]);
render(<Page />, document.getElementById("page")!);
