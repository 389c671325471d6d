// The pictures that an edit refers to, in the order in which the model reads them: buttons change it.
import { html, useLayoutEffect, useRef } from "./ui.js";
import { Fault } from "./controls.js";
import { draft, updateField } from "./draft.js";
import { Icon } from "./icons.js";
import { PictureInput } from "./picture.js";
import { moved, useRows } from "./rows.js";
import { say } from "./say.js";
import { t } from "./texts.js";

const STEPS = { up: -1, down: 1 };

export function References({ field, value = [], errors }) {
  const box = useRef(null);
  const toFocus = useRef(null); // {key, way} of the picture that has just been moved
  const rows = useRows(Math.min(value.length + 1, field.most ?? 1));
  const put = (key, source) => {
    const index = rows.placeOf(key);
    const isEmpty = index >= (draft.get().fields.images ?? []).length;
    if (index < 0 || (!source && isEmpty)) return; // removed while its file was being read, or still without a picture
    if (!source) rows.remove(index);
    updateField("images", (now = []) => {
      const next = source ? [...now.slice(0, index), source, ...now.slice(index + 1)] : now.filter((_, i) => i !== index);
      return next.length > 0 ? next : undefined;
    });
  };
  const move = (from, to, way) => {
    toFocus.current = { key: rows.keys[from], way };
    rows.move(from, to);
    updateField("images", (now) => moved(now, from, to));
    say(t("edit.reference.moved", { from: from + 1, to: to + 1, count: value.length }));
  };
  useLayoutEffect(() => {
    if (!toFocus.current) return;
    const { key, way } = toFocus.current;
    toFocus.current = null;
    const row = box.current.querySelector(`[data-row="${key}"]`);
    (row.querySelector(`[data-way="${way}"]:enabled`) ?? row.querySelector("[data-way]:enabled")).focus();
  });

  return html`<fieldset class="wide references" ref=${box}>
    <legend>${t("edit.references")}</legend>
    ${rows.keys.map((key, index) => html`<div key=${key} data-row=${key}>
      <${PictureInput} label=${t("edit.reference", { n: index + 1 })} value=${value[index]} error=${errors[`images[${index}]`]}
        onChange=${(next) => put(key, next)}>
        ${value.length > 1 && index < value.length && html`<${Order} index=${index} count=${value.length} onMove=${move} />`}
      <//>
    </div>`)}
    <${Fault} text=${errors.images} />
  </fieldset>`;
}

function Order({ index, count, onMove }) {
  return html`<span class="order">
    ${Object.entries(STEPS).map(([way, step]) => {
      const name = t(`edit.reference.${way}`, { n: index + 1 });
      return html`<button key=${way} type="button" class="icon" data-way=${way} aria-label=${name} title=${name}
        disabled=${index + step < 0 || index + step >= count} onClick=${() => onMove(index, index + step, way)}
        ><${Icon} name=${way} /></button>`;
    })}
  </span>`;
}
