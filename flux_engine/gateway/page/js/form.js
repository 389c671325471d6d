// The form: one draft in three modes, its estimate and the button.
import { html, useEffect, useLayoutEffect, useRef, useState, words } from "./ui.js";
import * as api from "./api.js";
import { AnyField, ChoiceField, Toggle } from "./controls.js";
import { draft, empty, jobOf, setField, setMode, withoutPictures } from "./draft.js";
import { Edit } from "./edit.js";
import { Estimate } from "./estimate.js";
import { fieldOf, modelNamed, models, offer, schemaOf } from "./fields.js";
import { Loras } from "./loras.js";
import { Maps } from "./maps.js";
import { missing } from "./missing.js";
import { Prompt } from "./prompt.js";
import { Seed } from "./seed.js";
import { Size } from "./size.js";
import { say } from "./say.js";
import { useStore } from "./store.js";
import { learnOfNew } from "./tasks.js";
import { Timeline } from "./timeline.js";
import { duration, t } from "./texts.js";

const MODES = ["image", "edit", "video"];
const PLAIN = ["num_inference_steps", "guidance_scale", "num_images"];
const MORE = ["negative_prompt", "true_cfg_scale", "output_format", "output_quality", "upscale", "enhance_prompt"];

export function Form() {
  const now = useStore(draft);
  const offered = useStore(offer);
  const [refused, setRefused] = useState({});
  const [foresaw, setForesaw] = useState({});
  const form = useRef(null);
  const model = offered && makerOf(offered, now.mode, now.fields.model);
  const schema = model && (schemaOf(offered, model, now.mode === "video" ? "video" : "image") ?? schemaOf(offered, model, "image"));
  const problem = refused.draft === now ? refused.fault : null; // gone with the next change
  useLayoutEffect(() => { // a timer's focus would take the next letters away from where they are typed
    if (problem) form.current?.querySelector("[aria-invalid=true]")?.focus();
  }, [refused]);
  if (!schema) return html`<section class="form" aria-busy="true"></section>`;

  const job = jobOf(now, schema);
  const asked = JSON.stringify(job);
  const foreseen = foresaw.asked === asked ? foresaw.fault : null; // not that of another job
  const errors = errorsOf(problem ?? foreseen);
  const lacking = missing(now, schema);
  // An answer to a draft that has changed meanwhile belongs to no field of this one, and stays until the form is sent again.
  const refuse = (fault) => setRefused(draft.get() === now ? { fault, draft: now } : { fault, draft: null });
  const late = refused.draft === null ? refused.fault : null;
  const send = async (event) => {
    event.preventDefault();
    if (lacking) {
      refuse(lacking);
      return;
    }
    setRefused({});
    try {
      const task = await api.create(job);
      learnOfNew({ created_at: new Date().toISOString(), status: "queued", type: job.type, ...task, request: task.request ?? withoutPictures(job) });
      say(t("say.queued", { prompt: job.prompt ?? job.keyframes?.[0].prompt ?? "" }));
      document.getElementById(`task-${task.task_id}`)?.scrollIntoView({ block: "nearest" });
    } catch (error) {
      refuse(error);
    }
  };
  const one = (name) => {
    const field = fieldOf(schema, name);
    return field && html`<${AnyField} key=${name} field=${field} value=${now.fields[name]} error=${errors[name]}
      onChange=${(value) => setField(name, value)} />`;
  };
  const offersVideo = models(offered).some((each) => schemaOf(offered, each, "video"));

  return html`<form class="form" id="make" ref=${form} onSubmit=${send} noValidate aria-label=${t("tab.what")}>
    <${Modes} mode=${now.mode} offersVideo=${offersVideo} />
    ${!(now.mode === "video" && now.fields.keyframes) && html`<${Prompt} field=${fieldOf(schema, "prompt")} value=${now.fields.prompt}
      limit=${fieldOf(schema, "max_sequence_length")?.fallback} error=${errors.prompt}
      onChange=${(text) => setField("prompt", text)} />`}
    ${now.mode === "edit" && html`<${Edit} schema=${schema} fields=${now.fields} errors=${errors} />`}
    ${now.mode === "video" && html`<${Timeline} schema=${schema} fields=${now.fields} errors=${errors} />`}
    <${ChoiceField} label=${t("form.model")} error=${errors.model} value=${model.id} onChange=${(id) => setField("model", id)}
      names=${Object.fromEntries(models(offered).map((each) => [each.id, each.id.split("/").at(-1)]))}
      field=${{ name: "model", choices: makersOf(offered, now.mode).map((each) => each.id), fallback: model.id }} />
    <${Size} schema=${schema} fields=${now.fields} errors=${errors} />
    ${PLAIN.map(one)}
    <${Seed} field=${fieldOf(schema, "seed")} error=${errors.seed} />
    <${Loras} field=${fieldOf(schema, "loras")} value=${now.fields.loras} known=${namesOf(offered.loras)} errors=${errors} />
    ${now.mode === "image" && fieldOf(schema, "control") && html`<${Maps} schema=${schema} value=${now.fields.control} errors=${errors} />`}
    <details class="wide">
      <summary>${t("form.more")}</summary>
      <div class="grid">
        ${MORE.map(one)}
        <${Toggle} label=${t("form.cache")} value=${now.fields.cache ?? true}
          onChange=${(on) => setField("cache", on ? undefined : false)} />
      </div>
    </details>
    <div class="send wide">
      <button type="submit" class="main">${t("form.make")} <kbd>${t("form.make.key")}</kbd></button>
      <button type="button" class="quiet" onClick=${empty}>${t("form.reset")}</button>
      <${Estimate} job=${job} asked=${asked} onProblem=${(fault) => setForesaw({ fault, asked })} />
    </div>
    <${General} problem=${late ?? problem ?? foreseen} isLate=${late !== null} />
  </form>`;
}

// Models that make what the mode is for, and the one of them that is chosen.
function makersOf(offered, mode) {
  return models(offered).filter((each) => schemaOf(offered, each, mode === "video" ? "video" : "image"));
}

function makerOf(offered, mode, id) {
  const able = makersOf(offered, mode);
  const chosen = modelNamed(offered, id);
  return able.includes(chosen) ? chosen : able[0] ?? chosen;
}

const namesOf = (loras = []) => loras.map((lora) => lora.name);

function Modes({ mode, offersVideo }) {
  return html`<div class="modes wide" role="group" aria-label=${t("tab.what")}>
    ${MODES.filter((one) => one !== "video" || offersVideo).map((one) => html`<button key=${one} type="button"
      aria-pressed=${String(mode === one)} onClick=${() => setMode(one)}>${t(`tab.${one}`)}</button>`)}
  </div>`;
}

// Problems that belong to no input that is shown, and limits, with the time until more is allowed.
function General({ problem, isLate }) {
  const [left, setLeft] = useState(0);
  useEffect(() => {
    setLeft(problem?.retryAfter ?? 0);
    if (!problem?.retryAfter) return undefined;
    const timer = setInterval(() => setLeft((seconds) => Math.max(0, seconds - 1)), 1000);
    return () => clearInterval(timer);
  }, [problem]);
  if (!problem || (!isLate && problem.field && document.querySelector(`#make [aria-invalid=true]`))) return null;
  return html`<p class="error wide" role="alert">${words(problem.message)} ${left > 0 && t("form.limit", { time: duration(left) })}</p>`;
}

const errorsOf = (problem) => (problem?.field ? { [problem.field]: problem.message } : {});
