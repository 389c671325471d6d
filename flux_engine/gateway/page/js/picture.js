// A picture to work on: dropped, pasted, chosen or by address. It is kept as a data URI, as the API takes it.
import { Fault } from "./controls.js";
import { draft } from "./draft.js";
import { Icon } from "./icons.js";
import { html, useId, useRef, useState, useWindow } from "./ui.js";
import { t } from "./texts.js";

const TYPES = "image/png,image/jpeg,image/webp";

export const isAddress = (source) => /^https:\/\//i.test(source ?? "");

export function readAsUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

export function sizeOf(source) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve({ width: image.naturalWidth, height: image.naturalHeight });
    image.onerror = () => reject(new Error("unreadable"));
    image.src = source;
  });
}

// `children` stand beside the label.
export function PictureInput({ value, onChange, error, label, takesPaste = false, children }) {
  const id = useId();
  const [failed, setFailed] = useState(null); // {value}: what the place held when a file could not be read
  const shown = useRef(value);
  shown.current = value;
  const turn = useRef(0); // of the latest file, address or removal: a file that is read later than the next one is dropped
  const [isOver, setOver] = useState(false);
  const [begun, setBegun] = useState(""); // of an address that is still being typed
  const isUnreadable = failed !== null && failed.value === value;
  if (failed && !isUnreadable) setFailed(null); // nor again when the place is as it was then
  const fault = isUnreadable ? t("edit.image.unreadable") : "";

  const take = async (file) => {
    if (!file) return;
    const mine = (turn.current += 1);
    setFailed(null);
    const { round } = draft.get();
    const isLatest = () => mine === turn.current && round === draft.get().round;
    try {
      const uri = await readAsUri(file);
      await sizeOf(uri);
      if (isLatest()) onChange(uri);
    } catch {
      if (isLatest()) setFailed({ value: shown.current });
    }
  };
  const choose = (event) => {
    take(event.currentTarget.files[0]);
    event.currentTarget.value = ""; // the same file may be chosen again
  };
  const write = (text) => {
    turn.current += 1;
    setBegun(isAddress(text) ? "" : text);
    onChange(isAddress(text) ? text : undefined);
  };
  const paste = (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (takesPaste && file) {
      event.preventDefault();
      take(file);
    }
  };
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    take(event.dataTransfer.files[0]);
  };
  useWindow("paste", paste);

  const said = fault || error;
  return html`<div class="wide picture-input">
    <div class="title"><label class="label" for=${id}>${label}</label>${children}</div>
    <div class=${`drop${isOver ? " over" : ""}`} onDrop=${drop}
      onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)}>
      ${value && !isAddress(value) && html`<img src=${value} alt="" />`}
      <span>${t("edit.image.drop")} <label class="linklike" for=${id}>${t("edit.image.choose")}</label></span>
      <input id=${id} type="file" accept=${TYPES} aria-describedby=${said ? `${id}-error` : undefined}
        aria-invalid=${said ? "true" : undefined}
        onChange=${choose} />
      <input type="url" aria-label=${`${label}: ${t("edit.image.url")}`} placeholder=${t("edit.image.url")}
        value=${isAddress(value) ? value : value ? "" : begun} onInput=${(event) => write(event.currentTarget.value)} />
      ${value && html`<button type="button" class="icon" aria-label=${`${t("form.remove")}: ${label}`} title=${t("form.remove")}
        onClick=${() => write("")}><${Icon} name="close" /></button>`}
    </div>
    <${Fault} text=${said} id=${`${id}-error`} />
  </div>`;
}
