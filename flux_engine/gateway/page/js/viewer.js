// One finished task: its file, its settings, and what can be done with it.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./ui.js";
import * as api from "./api.js";
import { isVideo, isWithheld, parametersOf, placesOf, promptOf, seedOf, shapeOf } from "./asked.js";
import { canCopyAs, copyAs, LANGUAGES } from "./copyas.js";
import { Fault } from "./controls.js";
import { draft, lockSeed, setField, setMode, takeSettings } from "./draft.js";
import { dropFilesOf, fileOf, useFile } from "./files.js";
import { Icon } from "./icons.js";
import { readAsUri } from "./picture.js";
import { say } from "./say.js";
import { useStore } from "./store.js";
import { forget, isFinal, learn, learnOfNew, tasks } from "./tasks.js";
import { t } from "./texts.js";

export function Viewer({ id, index, onClose }) {
  const box = useRef(null);
  const task = useStore(tasks).get(id);
  const [fault, setFault] = useState("");
  useLayoutEffect(() => {
    if (!box.current.open) box.current.showModal();
  }, []);
  useEffect(() => {
    api.status(id).then(learn, (error) => setFault(error.status === 404 ? t("view.unknown") : error.message));
  }, [id]);
  const close = (event) => {
    event?.preventDefault();
    onClose();
  };
  return html`<dialog class="viewer" ref=${box} aria-labelledby="view-title" onCancel=${close}>
    <header>
      <h2 id="view-title">${t(task && isVideo(task) ? "view.title.video" : "view.title")}</h2>
      <button type="button" class="icon" aria-label=${t("view.close")} title=${t("view.close")} onClick=${close}><${Icon} name="close" /></button>
    </header>
    <${Fault} text=${fault} />
    ${task && html`<${Shown} task=${task} index=${index} onClose=${onClose} onFault=${setFault} />`}
  </dialog>`;
}

function Shown({ task, index, onClose, onFault }) {
  const { file = index, withheld = null } = placesOf(task)[index] ?? {};
  const isMade = task.status === "completed" && !withheld;
  const { url, error } = useFile(task.task_id, file, isMade);
  const hasNone = Boolean(error) || (!isMade && isFinal(task));
  return html`<div class="shown">
    <figure class=${hasNone ? "none" : ""} style=${{ aspectRatio: hasNone ? undefined : shapeOf(task) }}>
      ${url && !isVideo(task) && html`<img src=${url} alt=${promptOf(task)} />`}
      ${url && isVideo(task) && html`<${Film} task=${task} url=${url} />`}
      ${error && html`<figcaption>${error.status === 410 ? t("gallery.expired") : error.message}</figcaption>`}
      ${!isMade && isFinal(task) && html`<figcaption class="error"><${Why} task=${task} withheld=${withheld} /></figcaption>`}
    </figure>
    <div class="facts">
      <p class="prompt" dir="auto">${promptOf(task)}</p>
      ${isFinal(task) && html`<${Actions} task=${task} index=${index} isMade=${isMade} onClose=${onClose} onFault=${onFault} />`}
      ${task.warnings?.length > 0 && html`<h3>${t("view.warnings")}</h3>
        <ul>${task.warnings.map((warning) => html`<li key=${warning}>${warning}</li>`)}</ul>`}
      <h3>${t("view.settings")}</h3>
      <${Settings} task=${task} index=${index} />
    </div>
  </div>`;
}

// Why there is nothing to see.
function Why({ task, withheld }) {
  if (!withheld && !isWithheld(task)) return task.error?.message ?? t(`gallery.${task.status}`);
  const said = withheld ? `${withheld.label} ${withheld.score.toFixed(2)}` : task.error.message;
  return html`${t(isVideo(task) ? "view.withheld.video" : "view.withheld")}<small>${said}</small>`;
}

// GIF and animated WebP are pictures to a browser.
function Film({ task, url }) {
  const isPicture = ["gif", "webp"].includes(parametersOf(task).output_format);
  if (isPicture) return html`<img src=${url} alt=${promptOf(task)} />`;
  return html`<video src=${url} controls loop playsinline aria-label=${promptOf(task)}></video>`;
}

function Settings({ task, index }) {
  const shown = Object.entries({ ...parametersOf(task), seed: seedOf(task, index) }).filter(
    ([name, value]) => name !== "prompt" && value !== null && value !== "" && !(Array.isArray(value) && value.length === 0),
  );
  return html`<dl>${shown.map(([name, value]) => html`<div key=${name}>
    <dt>${name}</dt><dd dir="auto">${typeof value === "object" ? JSON.stringify(value) : String(value)}</dd>
  </div>`)}</dl>`;
}

function Actions({ task, index, isMade, onClose, onFault }) {
  const [copied, setCopied] = useState("");
  const attempt = (work) => async () => {
    try {
      await work();
    } catch (error) {
      onFault(error.message);
    }
  };
  const again = async () => {
    const made = await api.again(task.task_id, { seed: -1, cache: true });
    learnOfNew({ ...made, request: parametersOf(task), type: task.type });
    onClose();
  };
  const copy = async (text) => {
    await copyText(text);
    setCopied(t("view.copied"));
    say(t("view.copied"));
  };
  return html`<div class="actions">
    <button type="button" class="main" onClick=${attempt(again)}>${t("view.again")}</button>
    <button type="button" onClick=${() => { useAll(task, index); onClose(); }}>${t("view.but")}</button>
    ${isMade && !isVideo(task) && html`<button type="button"
      onClick=${attempt(async () => { await useAsInput(task, index); onClose(); })}>${t("view.input")}</button>`}
    <button type="button" onClick=${() => { useSeed(task, index); onClose(); }}>${t("view.seed")}</button>
    ${isMade && html`<button type="button" onClick=${attempt(() => download(task, index))}>${t("view.download")}</button>`}
    <button type="button" onClick=${attempt(() => copy(`${location.origin}${location.pathname}#task/${task.task_id}`))}>${t("view.link")}</button>
    <label class="small">${t("view.copy")}
      <select value="" onChange=${(event) => { const one = event.currentTarget.value; event.currentTarget.value = "";
        attempt(() => copy(copyAs(one, task)))(); }}>
        <option value="">–</option>
        ${Object.entries(LANGUAGES).filter(([code]) => canCopyAs(code, task)).map(([code, name]) => html`<option key=${code} value=${code}>${name}</option>`)}
      </select></label>
    <button type="button" class="danger" onClick=${attempt(() => removeTask(task, onClose))}>${t("view.delete")}</button>
    ${copied && html`<span class="note">${copied}</span>`}
  </div>`;
}

export function useSeed(task, index) {
  setField("seed", seedOf(task, index));
  lockSeed(true);
}

export function useAll(task, index) {
  takeSettings({ ...parametersOf(task), type: task.type, seed: seedOf(task, index) });
  document.querySelector("#make textarea")?.focus();
}

export async function useAsInput(task, index) {
  const { blob } = await fileOf(task.task_id, placesOf(task)[index].file);
  setField("image", await readAsUri(blob));
  setField("mask", undefined);
  if (draft.get().mode === "image") setMode("edit");
}

export async function removeTask(task, onDone = () => {}) {
  if (!confirm(t("view.delete.sure"))) return;
  await api.remove(task.task_id);
  dropFilesOf(task.task_id);
  forget(task.task_id);
  onDone();
}

async function download(task, index) {
  const { url, blob } = await fileOf(task.task_id, placesOf(task)[index].file);
  const link = document.createElement("a");
  link.href = url;
  link.download = `flux-${seedOf(task, index)}.${blob.type.split("/")[1].replace("jpeg", "jpg")}`;
  link.click();
}

// The clipboard's own interface is there over https and on localhost only.
async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  return undefined;
}
