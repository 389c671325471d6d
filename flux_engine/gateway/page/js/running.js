// Tasks under way: where each is, how long it takes still, its preview, and a way to cancel it.
import { html, useState } from "./ui.js";
import * as api from "./api.js";
import { promptOf, shapeOf } from "./asked.js";
import { useStore } from "./store.js";
import { isFinal, learn, newestFirst, tasks } from "./tasks.js";
import { duration, hasText, t } from "./texts.js";

export function Running() {
  const running = newestFirst(useStore(tasks)).filter((task) => !isFinal(task)).reverse();
  return html`<section class="running" aria-labelledby="running-title">
    <h2 id="running-title">${t("run.title")}</h2>
    ${running.length === 0 && html`<p class="note">${t("run.none")}</p>`}
    <ul>${running.map((task) => html`<${UnderWay} key=${task.task_id} task=${task} />`)}</ul>
  </section>`;
}

function UnderWay({ task }) {
  const [fault, setFault] = useState("");
  const cancel = () => cancelTask(task).catch((error) => setFault(error.message));
  const prompt = promptOf(task);
  return html`<li class="under-way" id=${`task-${task.task_id}`}>
    <div class="preview" style=${{ aspectRatio: shapeOf(task) }}>
      ${task.preview && html`<img src=${task.preview} alt=${t("run.preview")} />`}
    </div>
    <div class="facts">
      <p class="prompt" dir="auto">${prompt}</p>
      <progress max="1" value=${task.status === "queued" ? undefined : task.progress ?? 0}
        aria-label=${t("run.progress", { prompt })}></progress>
      <p class="note">${where(task)}</p>
      ${fault && html`<p class="error" role="alert">${fault}</p>`}
      <button type="button" onClick=${cancel} disabled=${task.cancelling}
        aria-label=${`${t("run.cancel")}: ${prompt}`}>${t(task.cancelling ? "run.cancelling" : "run.cancel")}</button>
    </div>
  </li>`;
}

export async function cancelTask(task) {
  learn({ ...task, cancelling: true });
  try {
    const said = await api.cancel(task.task_id);
    if (said.task_id) learn(said);
  } catch (error) {
    learn({ ...task, cancelling: false });
    throw error;
  }
}

// One line: the stage, how far within it, the time left; or what it waits for.
export function where(task) {
  const said = [];
  if (task.status === "queued") {
    said.push(t("run.queued"));
    if (typeof task.position === "number") said.push(task.position > 0 ? t("run.position", { n: task.position }) : t("run.next"));
    if (task.waiting_for && hasText(`run.waiting.${task.waiting_for}`)) said.push(t(`run.waiting.${task.waiting_for}`));
  } else {
    said.push(hasText(`stage.${task.stage}`) ? t(`stage.${task.stage}`) : t("stage.queued"));
    if (task.total_frames) said.push(t("run.frame", { frame: task.frame, total: task.total_frames }));
    else if (task.total_steps) said.push(t("run.step", { step: task.step, total: task.total_steps }));
  }
  if (task.eta_seconds > 0) said.push(t("run.left", { time: duration(task.eta_seconds) }));
  return said.join(" · ");
}
