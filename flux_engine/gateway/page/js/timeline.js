// A video's keyframes on a line of frames, and how it moves between them.
import { html } from "./ui.js";
import { AnyField, Fault, Field, hintOf, NumberField } from "./controls.js";
import { fitted, setField } from "./draft.js";
import { fieldOf } from "./fields.js";
import { Icon } from "./icons.js";
import { Prompt } from "./prompt.js";
import { t } from "./texts.js";

const MOTIONS = { zoom: 1, pan_x: 0, pan_y: 0, rotate: 0 };

export function Timeline({ schema, fields, errors }) {
  const frames = fields.num_frames ?? fieldOf(schema, "num_frames")?.fallback ?? 48;
  const fps = fields.fps ?? fieldOf(schema, "fps")?.fallback ?? 24;
  const modes = fieldOf(schema, "mode");
  const names = Object.fromEntries(modes.choices.map((mode) => [mode, t(`video.mode.${mode}`)]));
  const number = (name, more = []) => html`<${NumberField} key=${name} label=${t(`video.${name}`)} field=${fieldOf(schema, name)}
    hint=${[hintOf(fieldOf(schema, name)), ...more].join(" · ")} value=${fields[name]} error=${errors[name]} onChange=${(value) => setField(name, value)} />`;
  const mode = fields.mode ?? modes.fallback;
  return html`
    <${Keyframes} value=${fields.keyframes} frames=${frames} errors=${errors} schema=${schema} prompt=${fields.prompt} />
    ${number("num_frames", [t("video.length", { seconds: Math.round((frames / fps) * 10) / 10 })])}
    ${number("fps")}
    <${Field} label=${t("video.mode")} error=${errors.mode} isWide=${true}>
      ${(own) => html`<select ...${own} value=${mode} onChange=${(event) => setField("mode", event.currentTarget.value)}>
        ${modes.choices.map((one) => html`<option key=${one} value=${one}>${names[one]}</option>`)}
      </select>`}
    <//>
    ${number("generated_fps")}
    <${AnyField} field=${fieldOf(schema, "loop")} value=${fields.loop} onChange=${(value) => setField("loop", value || undefined)} />
    ${mode === "feedback" && html`<${Motion} value=${fields.motion} errors=${errors} />`}`;
}

function Motion({ value = {}, errors }) {
  const change = (name, number) => {
    const next = { ...value, [name]: number };
    if (number === undefined) delete next[name];
    setField("motion", Object.keys(next).length > 0 ? next : undefined);
  };
  return html`<fieldset class="wide quarters">
    <legend>${t("video.motion")}</legend>
    ${Object.entries(MOTIONS).map(([name, still]) => html`<${NumberField} key=${name} label=${t(`video.${name}`)} hint=""
      field=${{ name, low: null, high: null, step: "any", fallback: still }} value=${value[name]}
      error=${errors[`motion.${name}`]} onChange=${(number) => change(name, number)} />`)}
    <${Fault} text=${errors.motion} />
  </fieldset>`;
}

function Keyframes({ value, frames, errors, schema, prompt }) {
  const most = fieldOf(schema, "keyframes").most;
  const all = fitted(value ?? [], frames);
  const put = (next) => setField("keyframes", next.length > 0 ? next : undefined);
  const change = (index, part) => put(all.map((one, i) => (i === index ? { ...one, ...part } : one)));
  const add = () => {
    if (all.length === 0) put([{ frame: 0, prompt: prompt ?? "" }, { frame: Math.max(1, frames - 1), prompt: "" }]);
    else put([...all, { frame: Math.min(frames - 1, all.at(-1).frame + Math.max(1, frames >> 2)), prompt: "" }]);
  };
  return html`<fieldset class="wide keyframes">
    <legend>${t("video.keyframes")}</legend>
    ${all.length > 0 && html`<div class="line" aria-hidden="true">
      ${all.map((one, i) => html`<i key=${i} style=${{ left: `${(100 * one.frame) / Math.max(1, frames - 1)}%` }}></i>`)}
    </div>`}
    ${all.map((one, index) => html`<div class="keyframe" key=${index}>
      <${Prompt} label=${t("video.keyframe", { n: index + 1 })} rows=${2} value=${one.prompt}
        error=${errors[`keyframes[${index}].prompt`]} onChange=${(text) => change(index, { prompt: text ?? "" })} />
      <${Field} label=${`${t("video.frame")}: ${one.frame}`} error=${errors[`keyframes[${index}].frame`]}>
        ${(own) => html`<input ...${own} type="range" min="0" max=${frames - 1} value=${one.frame} disabled=${index === 0}
          onInput=${(event) => change(index, { frame: event.currentTarget.valueAsNumber })} />`}
      <//>
      <${NumberField} field=${{ name: "seed", low: 0, high: null, step: 1, fallback: null }} value=${one.seed} hint=""
        error=${errors[`keyframes[${index}].seed`]} onChange=${(seed) => change(index, { seed })} />
      <button type="button" class="icon" title=${t("form.remove")} aria-label=${`${t("form.remove")}: ${t("video.keyframe", { n: index + 1 })}`}
        onClick=${() => put(all.length === 2 ? [] : all.filter((_, i) => i !== index).map((o, i) => (i === 0 ? { ...o, frame: 0 } : o)))}><${Icon} name="close" /></button>
    </div>`)}
    <${Fault} text=${errors.keyframes} />
    ${all.length < most && html`<button type="button" class="quiet" onClick=${add}>${t("video.add")}</button>`}
  </fieldset>`;
}
