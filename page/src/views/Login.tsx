// Logging in: a token is exchanged for a cookie that no script can read.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { api, Refused } from "../api/client";
import { go, route, session } from "../app";
import { safeNext } from "../route";
import { Logo } from "../parts/Logo";
import { useTitle } from "../parts/title";

export function Login() {
  useTitle("Log in");
  const field = useRef<HTMLInputElement>(null);
  const isBusy = useSignal(false);
  const refused = useSignal("");

  const next = () => {
    const where = route.peek();
    return where.view === "login" ? where.next : safeNext(location.pathname + location.search + location.hash);
  };
  const logIn = async (token: string) => {
    if (token === "") {
      refused.value = "Paste a token first.";
      return;
    }
    isBusy.value = true;
    refused.value = "";
    try {
      const known = await api.logIn(token);
      if (field.current) field.current.value = "";
      session.value = known;
      go(next(), "replace");
    } catch (cause) {
      if (!(cause instanceof Refused)) throw cause;
      refused.value = cause.status === 401 ? "This token is not known. Check it, or have a new one made." : cause.message;
    } finally {
      isBusy.value = false;
    }
  };
  useEffect(() => {
    const where = route.peek();
    // `buildflow dev` prints such an address; the token leaves the address at once.
    if (where.view === "login" && where.token) {
      history.replaceState(null, "", location.pathname + location.search);
      void logIn(where.token);
    } else field.current?.focus();
  }, []);

  return (
    <main class="login">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void logIn(field.current?.value.trim() ?? "");
        }}
      >
        <h1>
          <Logo /> BuildFlow
        </h1>
        <label for="token">Token</label>
        <input id="token" ref={field} type="password" autocomplete="current-password" spellcheck={false} maxLength={256} aria-describedby="token-help" aria-invalid={refused.value ? "true" : undefined} />
        {refused.value && (
          <p class="field-error" role="alert">
            {refused.value}
          </p>
        )}
        <button type="submit" class="primary" disabled={isBusy.value}>
          Log in
        </button>
        <p id="token-help" class="hint">
          <code>buildflow dev</code> prints one when it starts; of a cluster an operator has it. It is kept in a cookie of
          this browser that no script can read, for a week after your last visit.
        </p>
      </form>
    </main>
  );
}
