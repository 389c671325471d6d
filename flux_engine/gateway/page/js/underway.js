// A task under way, in the place of its coming picture: preview, progress, what it waits for, and a way to cancel it.
import { html, useState } from "./ui.js";
import * as api from "./api.js";
import { promptOf, shapeOf } from "./asked.js";
import { Icon } from "./icons.js";
import { learn, tasks } from "./tasks.js";
import { duration, hasText, t } from "./texts.js";

export function UnderWay({ task, index }) {
  const [fault, setFault] = useState("");
  const cancel = () => cancelTask(task).catch((error) => setFault(error.message));
  const prompt = promptOf(task);
  return html`<div class="preview" style=${{ aspectRatio: shapeOf(task) }}>
      ${task.preview && html`<img src=${task.preview} alt=${t("run.preview")} />`}
      ${index === 0 && html`<button type="button" class="icon" onClick=${cancel} disabled=${task.cancelling}
        title=${t(task.cancelling ? "run.cancelling" : "run.cancel")}
        aria-label=${`${t("run.cancel")}: ${prompt}`}><${Icon} name="close" /></button>`}
    </div>
    <p class="caption"><span class="line" dir="auto">${prompt}</span>
      ${index === 0 && html`<progress max="1" value=${task.status === "queued" ? undefined : task.progress ?? 0}
        aria-label=${t("run.progress", { prompt })}></progress>
        <span class="note" title=${where(task)}>${task.cancelling ? t("run.cancelling") : where(task)}</span>`}
      ${fault && html`<span class="error" role="alert">${fault}</span>`}</p>`;
}

export async function cancelTask({ task_id }) {
  const mark = (cancelling) => tasks.get().has(task_id) && learn({ task_id, cancelling }); // the rest may be newer by now
  mark(true);
  try {
    const said = await api.cancel(task_id);
    if (said.task_id) learn(said);
  } catch (error) {
    mark(false);
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
