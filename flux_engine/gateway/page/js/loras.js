// LoRAs with their scales; those on the volume are offered by name.
import { html, useId } from "./ui.js";
import { Fault, Field } from "./controls.js";
import { Icon } from "./icons.js";
import { setField } from "./draft.js";
import { t } from "./texts.js";

export function Loras({ field, value = [], known, errors }) {
  const list = useId();
  const put = (loras) => setField("loras", loras.length > 0 ? loras : undefined);
  const change = (index, part) => put(value.map((lora, i) => (i === index ? { ...lora, ...part } : lora)));
  return html`<fieldset class="wide">
    <legend>${t("form.loras")}</legend>
    <datalist id=${list}>${known.map((name) => html`<option key=${name} value=${name}></option>`)}</datalist>
    ${value.map(
      (lora, index) => html`<div class="row" key=${index}>
        <${Field} label=${t("form.lora.path")} error=${errors[`loras[${index}]`] ?? errors[`loras[${index}].path`]} isWide=${true}>
          ${(own) => html`<input ...${own} list=${list} value=${lora.path}
            onInput=${(event) => change(index, { path: event.currentTarget.value })} />`}
        <//>
        <${Field} label=${t("form.lora.scale")} error=${errors[`loras[${index}].scale`]}>
          ${(own) => html`<input ...${own} type="number" step="0.05" value=${lora.scale}
            onInput=${(event) => change(index, { scale: event.currentTarget.valueAsNumber })} />`}
        <//>
        <button type="button" class="icon" aria-label=${t("form.remove")} title=${t("form.remove")}
          onClick=${() => put(value.filter((_, i) => i !== index))}><${Icon} name="close" /></button>
      </div>`,
    )}
    <${Fault} text=${errors.loras} />
    ${value.length < field.most &&
    html`<button type="button" class="quiet" onClick=${() => put([...value, { path: "", scale: 1 }])}>${t("form.lora.add")}</button>`}
  </fieldset>`;
}
