// Maps that a picture follows by a ControlNet: each with its type, its picture, and how closely and how long it is followed.
import { html } from "./ui.js";
import { AnyField, Fault, labelOf } from "./controls.js";
import { updateField } from "./draft.js";
import { fieldOf, partsOf } from "./fields.js";
import { PictureInput } from "./picture.js";
import { useRows } from "./rows.js";
import { hasText, t } from "./texts.js";

const PICTURE = "image";

export function Maps({ schema, value = [], errors }) {
  const parts = partsOf(schema, "control");
  const names = Object.keys(parts.properties);
  const rows = useRows(value.length);
  const put = (make) => updateField("control", (now = []) => {
    const maps = make(now);
    return maps.length > 0 ? maps : undefined;
  });
  const change = (key, name, part) => {
    const index = rows.placeOf(key); // not that of when its picture began to be read
    put((now) => now.map((map, i) => (i === index ? { ...map, [name]: part } : map)));
  };
  const add = () => put((now) => [...now, { type: fieldOf(parts, "type").choices[0] }]);
  const remove = (index) => {
    rows.remove(index);
    put((now) => now.filter((_, i) => i !== index));
  };
  const next = value.findIndex((map) => !map[PICTURE]); // takes what is pasted
  return html`<fieldset class="wide maps">
    <legend>${t("map.title")}</legend>
    ${value.length > 0 && html`<p class="note">${t("map.about")}</p>`}
    ${value.map((map, index) => html`<fieldset class="grid map" key=${rows.keys[index]}>
      <legend>${t("map.one", { n: index + 1 })}</legend>
      ${names.map((name) => html`<${Part} key=${name} field=${fieldOf(parts, name)} value=${map[name]} n=${index + 1}
        takesPaste=${index === next} error=${errors[`control[${index}].${name}`]}
        onChange=${(part) => change(rows.keys[index], name, part)} />`)}
      <button type="button" class="quiet wide" aria-label=${`${t("form.remove")}: ${t("map.one", { n: index + 1 })}`}
        onClick=${() => remove(index)}>${t("form.remove")}</button>
    </fieldset>`)}
    <${Fault} text=${errors.control} />
    ${value.length < (fieldOf(schema, "control").most ?? 1) &&
    html`<button type="button" class="quiet" onClick=${add}>${t("map.add")}</button>`}
  </fieldset>`;
}

function Part({ field, n, takesPaste, ...own }) {
  if (field.name === PICTURE) return html`<${PictureInput} label=${t("map.image", { n })} takesPaste=${takesPaste} ...${own} />`;
  const names = Object.fromEntries((field.choices ?? []).map((one) => [one, nameOf(`${field.name}.${one}`, one)]));
  const first = field.choices?.[0] ?? field.fallback;
  return html`<${AnyField} field=${{ ...field, fallback: first }} label=${nameOf(field.name, labelOf(field.name))}
    names=${names} ...${own} />`;
}

const nameOf = (name, otherwise) => (hasText(`map.${name}`) ? t(`map.${name}`) : otherwise);
