// Shape by ratio, or a size of one's own.
import { html, useState } from "./ui.js";
import { Field, NumberField } from "./controls.js";
import { setField, setFields } from "./draft.js";
import { fieldOf } from "./fields.js";
import { t } from "./texts.js";

const OWN = "own";

export function Size({ schema, fields, errors }) {
  const ratios = fieldOf(schema, "aspect_ratio");
  const [width, height] = [fieldOf(schema, "width"), fieldOf(schema, "height")];
  const [isOwn, setOwn] = useState(false);
  const shape = fields.aspect_ratio ?? (isOwn || fields.width || fields.height ? OWN : "");
  const choose = (event) => {
    const chosen = event.currentTarget.value;
    setOwn(chosen === OWN);
    if (chosen === OWN) setFields({ aspect_ratio: undefined, width: width.fallback ?? 1024, height: height.fallback ?? 1024 });
    else setFields({ aspect_ratio: chosen || undefined, width: undefined, height: undefined });
  };
  return html`<${Field} label=${t("form.shape")} error=${errors.aspect_ratio}>
      ${(own) => html`<select ...${own} value=${shape} onChange=${choose}>
        <option value="">${width?.fallback ? `${width.fallback} × ${height.fallback}` : "–"}</option>
        ${(ratios?.choices ?? []).filter(Boolean).map((ratio) => html`<option key=${ratio} value=${ratio}>${ratio}</option>`)}
        <option value=${OWN}>${t("form.shape.own")}</option>
      </select>`}
    <//>
    ${shape === OWN &&
    [width, height].map(
      (side) => html`<${NumberField} key=${side.name} field=${{ ...side, step: 16 }} value=${fields[side.name]}
        error=${errors[side.name]} onChange=${(value) => setField(side.name, value)} />`,
    )}`;
}
