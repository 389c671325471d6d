// Keys: those that work everywhere, and those of the picture that has the focus.
import { html, useLayoutEffect, useRef, useWindow } from "./ui.js";
import { Icon } from "./icons.js";
import { cancelTask } from "./underway.js";
import { isFinal, newestFirst, tasks } from "./tasks.js";
import { t } from "./texts.js";
import { removeTask, useAll, useSeed } from "./viewer.js";

const LIST = [
  ["Ctrl+Enter", "keys.generate"],
  ["Esc", "keys.cancel"],
  ["← → ↑ ↓", "keys.arrows"],
  ["Enter", "keys.open"],
  ["S", "keys.seed"],
  ["A", "keys.all"],
  ["I", "keys.info"],
  ["Del", "keys.delete"],
  ["?", "keys.help"],
];

const isTyping = (target) => target.closest?.("input, textarea, select, [contenteditable]") !== null;

export function useKeys({ onOpen, onHelp, onFault, isBusy }) {
  const attempt = (work) => {
    onFault("");
    work().catch((error) => onFault(error.message));
  };
  useWindow("keydown", (event) => {
    if (event.isComposing || event.defaultPrevented) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      document.getElementById("make")?.requestSubmit();
      return;
    }
    if (isBusy || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      const newest = newestFirst(tasks.get()).find((task) => !isFinal(task) && !task.cancelling);
      if (newest) attempt(() => cancelTask(newest));
      return;
    }
    if (isTyping(event.target)) return;
    if (event.key === "?") onHelp();
    else ofPicture(event, onOpen, attempt);
  });
}

function ofPicture(event, onOpen, attempt) {
  const { task: id, index } = document.activeElement?.dataset ?? {};
  const task = id && tasks.get().get(id);
  if (!task) return;
  const actions = {
    s: () => useSeed(task, Number(index)),
    a: () => useAll(task, Number(index)),
    i: () => onOpen(id, Number(index)),
    delete: () => attempt(() => removeTask(task)),
  };
  const action = actions[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
}

export function KeyList({ onClose }) {
  const box = useRef(null);
  useLayoutEffect(() => {
    if (!box.current.open) box.current.showModal();
  }, []);
  return html`<dialog class="keys" ref=${box} aria-labelledby="keys-title" onCancel=${(event) => { event.preventDefault(); onClose(); }}>
    <header>
      <h2 id="keys-title">${t("keys.title")}</h2>
      <button type="button" class="icon" aria-label=${t("view.close")} onClick=${onClose}><${Icon} name="close" /></button>
    </header>
    <dl>${LIST.map(([key, text]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${t(text)}</dd></div>`)}</dl>
  </dialog>`;
}
