// What an edit needs besides the prompt: the picture, a mask, references, a larger canvas; as far as the model takes them.
import { html, useEffect, useState } from "./ui.js";
import { AnyField, Fault, NumberField, Toggle } from "./controls.js";
import { setField } from "./draft.js";
import { fieldOf, partsOf } from "./fields.js";
import { MaskPainter } from "./mask.js";
import { PictureInput, isAddress, sizeOf } from "./picture.js";
import { References } from "./references.js";
import { t } from "./texts.js";

export function Edit({ schema, fields, errors }) {
  const [measured, setMeasured] = useState({});
  const [wantsMask, setWantsMask] = useState(Boolean(fields.mask));
  const size = measured.image === fields.image ? measured.size : null; // not that of the picture before
  const canPaint = fields.image && !isAddress(fields.image) && size && fieldOf(schema, "mask");
  useEffect(() => {
    const { image } = fields;
    let isCurrent = true;
    if (image && !isAddress(image)) sizeOf(image).then((found) => isCurrent && setMeasured({ image, size: found }), () => {});
    return () => { isCurrent = false; };
  }, [fields.image]);
  const choose = (image) => {
    setField("image", image);
    setField("mask", undefined);
    setWantsMask(false);
  };
  const want = (wanted) => {
    setWantsMask(wanted);
    if (!wanted) setField("mask", undefined);
  };
  const one = (name) => {
    const field = fieldOf(schema, name);
    return field && html`<${AnyField} key=${name} field=${field} value=${fields[name]} error=${errors[name]}
      onChange=${(value) => setField(name, value)} />`;
  };
  return html`
    <${PictureInput} label=${t("edit.image")} value=${fields.image} error=${errors.image} takesPaste=${true} onChange=${choose} />
    ${canPaint && html`<${Toggle} label=${t("edit.mask.use")} value=${wantsMask} onChange=${want} />`}
    ${canPaint && wantsMask && html`<${MaskPainter} key=${fields.image} image=${fields.image} size=${size} value=${fields.mask}
      onChange=${(mask) => setField("mask", mask)} />`}
    <${Fault} text=${errors.mask} />
    ${one("strength")}
    ${wantsMask && [one("mask_feather"), html`<div class="wide" key="mask_crop">${one("mask_crop")}</div>`]}
    ${fieldOf(schema, "expand") && html`<${Expand} sides=${partsOf(schema, "expand")} value=${fields.expand}
      errors=${errors} />`}
    ${fieldOf(schema, "images") && html`<${References} field=${fieldOf(schema, "images")} value=${fields.images}
      errors=${errors} />`}`;
}

function Expand({ sides, value, errors }) {
  const change = (side, pixels) => {
    const next = { ...value, [side]: pixels };
    if (!pixels) delete next[side];
    setField("expand", Object.keys(next).length > 0 ? next : undefined);
  };
  return html`<fieldset class="wide quarters">
    <legend>${t("edit.expand")}</legend>
    ${Object.keys(sides.properties).map((side) => html`<${NumberField} key=${side} label=${t(`edit.expand.${side}`)} hint=""
      field=${fieldOf(sides, side)} value=${value?.[side]} error=${errors[`expand.${side}`]}
      onChange=${(pixels) => change(side, pixels)} />`)}
    <${Fault} text=${errors.expand} />
  </fieldset>`;
}
