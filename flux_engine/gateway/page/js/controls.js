// Inputs with their label, hint and error. The error belongs to its input by aria-describedby.
import { html, useId, useRef, words } from "./ui.js";
import { t, hasText } from "./texts.js";

const ROOMS = ["form", "video", "edit"];

// A field's name in the language of the page; one that the page does not know keeps the API's own.
export function labelOf(name) {
  const room = ROOMS.find((one) => hasText(`${one}.${name}`));
  return room ? t(`${room}.${name}`) : name.replaceAll("_", " ");
}

export function Field({ label, hint, error, isWide, children }) {
  const id = useId();
  const about = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ") || undefined;
  return html`<div class=${`field${isWide ? " wide" : ""}`}>
    <label for=${id}>${label}</label>
    ${children({ id, "aria-describedby": about, "aria-invalid": error ? "true" : undefined })}
    ${hint && html`<small id=${`${id}-hint`}>${words(hint)}</small>`}
    <${Fault} text=${error} id=${`${id}-error`} />
  </div>`;
}

export const Fault = ({ text, id }) => text && html`<p class="error wide" role="alert" id=${id}>${words(text)}</p>`;

export function hintOf(field) {
  const said = [];
  if (field.low !== null && field.high !== null) said.push(t("form.between", { low: field.low, high: field.high }));
  if (field.fallback !== null && typeof field.fallback !== "object") {
    said.push(t("form.default", { value: field.fallback }));
  }
  return said.join(" · ");
}

// A number, or empty for the default. Keeps what is typed until it is a number, and shows a value that comes from elsewhere
// with the draft that brings it: an effect would come after the next letter.
export function NumberField({ field, value, onChange, error, label = labelOf(field.name), hint = hintOf(field) }) {
  const held = useRef({ value, text: value ?? "" });
  if (held.current.value !== value) held.current = { value, text: textFor(value, held.current.text) };
  const take = (event) => {
    held.current.text = event.currentTarget.value;
    const number = event.currentTarget.valueAsNumber;
    onChange(Number.isNaN(number) ? undefined : number);
  };
  return html`<${Field} label=${label} hint=${hint} error=${error}>
    ${(own) => html`<input ...${own} type="number" inputmode="decimal" step=${field.step} min=${field.low} max=${field.high}
      placeholder=${field.fallback ?? ""} value=${held.current.text} onInput=${take} />`}
  <//>`;
}

// `typed` where it says `value` in another way, as 0.50 does.
function textFor(value, typed) {
  if (value === undefined || value === null) return Number.isNaN(Number(typed)) ? typed : "";
  return typed === "" || Number(typed) !== value ? value : typed;
}

export function ChoiceField({ field, value, onChange, error, label = labelOf(field.name), names = {} }) {
  return html`<${Field} label=${label} error=${error}>
    ${(own) => html`<select ...${own} value=${value ?? field.fallback ?? ""}
      onChange=${(event) => onChange(event.currentTarget.value || undefined)}>
      ${(field.fallback === null || field.fallback === undefined) && html`<option value="">–</option>`}
      ${field.choices.map((choice) => html`<option key=${choice} value=${choice}>${names[choice] ?? choice}</option>`)}
    </select>`}
  <//>`;
}

export function TextField({ label, value, onChange, error, hint, rows, ...rest }) {
  const take = (event) => onChange(event.currentTarget.value || undefined);
  return html`<${Field} label=${label} hint=${hint} error=${error} isWide=${true}>
    ${(own) =>
      rows
        ? html`<textarea ...${own} dir="auto" rows=${rows} value=${value ?? ""} onInput=${take} ...${rest}></textarea>`
        : html`<input ...${own} dir="auto" value=${value ?? ""} onInput=${take} ...${rest} />`}
  <//>`;
}

export function Toggle({ label, value, onChange }) {
  return html`<label class="toggle">
    <input type="checkbox" checked=${value} onChange=${(event) => onChange(event.currentTarget.checked)} />
    <span>${label}</span>
  </label>`;
}

// A field of any type by its own description: for those that need no control of their own.
export function AnyField({ field, value, onChange, error, label = labelOf(field.name), names }) {
  const own = { field, value, onChange, error, label, names };
  if (field.choices && typeof field.choices[0] === "number") {
    const take = (choice) => onChange(choice === undefined ? undefined : Number(choice));
    return html`<${ChoiceField} ...${own} onChange=${take} />`;
  }
  if (field.choices) return html`<${ChoiceField} ...${own} />`;
  if (field.type === "boolean") {
    return html`<${Toggle} label=${label} value=${value ?? field.fallback ?? false} onChange=${onChange} />`;
  }
  if (field.type === "integer" || field.type === "number") return html`<${NumberField} ...${own} />`;
  return html`<${TextField} label=${label} value=${value} onChange=${onChange} error=${error} />`;
}
