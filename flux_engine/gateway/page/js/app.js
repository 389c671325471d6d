// The page as a whole: signing in, then form, tasks under way and gallery. `#task/<id>` opens a task.
import { html, useEffect, useLayoutEffect, useRef, useState, useWindow } from "./ui.js";
import { loadOffer, offer } from "./fields.js";
import { isWithheld, promptOf } from "./asked.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";
import { Icon } from "./icons.js";
import { KeyList, useKeys } from "./keys.js";
import { say, Status } from "./say.js";
import { session, signOut } from "./session.js";
import { SignIn } from "./signin.js";
import { useStore } from "./store.js";
import { connection, loadMore, onEnd, start } from "./tasks.js";
import { switchTheme, theme } from "./theme.js";
import { language, LANGUAGES, setLanguage, t } from "./texts.js";
import { Viewer } from "./viewer.js";

const RETRY_MS = 2000;
const SAID = { completed: "say.made", failed: "say.failed", cancelled: "say.cancelled" };

export function App() {
  const credential = useStore(session);
  useStore(language);
  return html`<${Header} isSignedIn=${credential !== ""} />
    ${credential === "" ? html`<${SignIn} />` : html`<${Studio} key=${credential} />`}
    <${Status} />`;
}

function Header({ isSignedIn }) {
  const now = useStore(language);
  const shade = useStore(theme);
  return html`<header class="head">
    ${isSignedIn ? html`<h1>FLUX</h1>` : html`<span></span>`}
    <label class="small">${t("head.language")}
      <select value=${now} onChange=${(event) => setLanguage(event.currentTarget.value)}>
        ${Object.entries(LANGUAGES).map(([code, name]) => html`<option key=${code} value=${code}>${name}</option>`)}
      </select></label>
    <button type="button" class="icon" aria-label=${t("head.theme")} title=${t("head.theme")} onClick=${switchTheme}
      ><${Icon} name=${shade === "dark" ? "sun" : "moon"} /></button>
    ${isSignedIn && html`<button type="button" class="quiet" onClick=${signOut}>${t("sign.out")}</button>`}
  </header>`;
}

function Studio() {
  const [open, setOpen] = useState(fromHash());
  const [showsKeys, setShowsKeys] = useState(false);
  const [fault, setFault] = useState("");
  const [refused, setRefused] = useState(""); // of what a key asked for
  const show = (id, index = 0) => {
    history.replaceState(null, "", id ? `#task/${encodeURIComponent(id)}` : location.pathname);
    setOpen(id ? { id, index } : null);
  };
  const shown = useRef(open);
  shown.current = open;
  const toFocus = useRef(null);
  const close = () => {
    if (shown.current !== open) return; // an answer came after this one was closed, and maybe another opened
    toFocus.current = document.querySelector(`[data-task="${CSS.escape(open.id)}"][data-index="${open.index}"]`);
    show(null);
  };
  useLayoutEffect(() => { // by then the dialog is gone; a timer's focus would take letters that are typed since
    toFocus.current?.focus();
    toFocus.current = null;
  }, [open]);
  useWindow("hashchange", () => setOpen(fromHash()));
  useKeys({ onOpen: show, onHelp: () => setShowsKeys(true), onFault: setRefused, isBusy: open !== null || showsKeys });
  useEffect(() => {
    const ending = new AbortController();
    start(ending.signal);
    loadMore();
    keepTrying(loadOffer, ending.signal, setFault);
    const stop = onEnd((task) => say(t(isWithheld(task) ? "say.withheld" : SAID[task.status], { prompt: promptOf(task) })));
    return () => {
      ending.abort();
      stop();
    };
  }, []);
  return html`<main class="studio">
    <${Connection} />
    ${[fault, refused].filter(Boolean).map((text) => html`<p key=${text} class="error wide" role="alert">${text}</p>`)}
    <${Form} />
    <div class="made">
      <${Gallery} onOpen=${show} />
      <button type="button" class="quiet" onClick=${() => setShowsKeys(true)}>${t("head.keys")} <kbd>?</kbd></button>
    </div>
    ${open && html`<${Viewer} key=${open.id} id=${open.id} index=${open.index} onClose=${close} />`}
    ${showsKeys && html`<${KeyList} onClose=${() => setShowsKeys(false)} />`}
  </main>`;
}

function Connection() {
  const state = useStore(connection);
  useLayoutEffect(() => {
    let wasAway = false;
    return connection.watch((next) => {
      if (next === "open" && wasAway) {
        say(t("say.back"));
        if (offer.get() === null) loadOffer().catch(() => {});
      }
      wasAway = next === "away";
    });
  }, []);
  return state === "away" ? html`<p class="banner">${t("say.away")}</p>` : null;
}

async function keepTrying(work, signal, onFault) {
  while (!signal.aborted) {
    try {
      await work();
      onFault("");
      return;
    } catch (error) {
      onFault(error.code === "unreachable" ? t("fault.capabilities") : error.message);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

function fromHash() {
  const found = /^#task\/(.+)$/.exec(location.hash);
  return found ? { id: decodeURIComponent(found[1]), index: 0 } : null;
}
