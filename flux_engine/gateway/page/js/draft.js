// What the form holds: the fields that somebody has set, by the API's own names. Others keep the model's defaults.
import { fieldOf } from "./fields.js";
import { createStore } from "./store.js";

const NAME = "flux.draft";
const PICTURES = ["image", "mask", "images"]; // too large to keep, and nobody else's business

// `round` counts how often it was emptied: a file that was chosen before belongs to no later one.
const EMPTY = { mode: "image", fields: {}, isSeedLocked: false, round: 0 };

export const draft = createStore(kept());

draft.watch((value) => {
  sessionStorage.setItem(NAME, JSON.stringify({ ...value, fields: withoutPictures(value.fields) }));
});

export function withoutPictures({ control, ...fields }) {
  const rest = Object.fromEntries(Object.entries(fields).filter(([name]) => !PICTURES.includes(name)));
  return control ? { ...rest, control: control.map(({ image, ...map }) => map) } : rest;
}

export const empty = () => draft.update(({ mode, round }) => ({ ...EMPTY, mode, round: round + 1 }));

export const setMode = (mode) => draft.update((now) => ({ ...now, mode }));

export const setField = (name, value) => updateField(name, () => value);

// `change` gets the value that the field has now, which may be newer than the one that was last shown.
export function updateField(name, change) {
  draft.update((now) => {
    const value = change(now.fields[name]);
    const fields = { ...now.fields, [name]: value };
    if (value === undefined) delete fields[name];
    return { ...now, fields };
  });
}

export const setFields = (some) => Object.entries(some).forEach(([name, value]) => setField(name, value));

export const lockSeed = (isSeedLocked) => draft.update((now) => ({ ...now, isSeedLocked }));

// The job of the draft, with only those fields that `schema` knows.
export function jobOf({ mode, fields, isSeedLocked }, schema) {
  const job = { type: mode === "video" ? "video" : "image", preview: true };
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined || value === "" || !(name in schema.properties)) continue;
    if (name === "seed" && !isSeedLocked) continue;
    if (PICTURES.concat("strength", "expand", "mask_crop", "mask_feather").includes(name) && mode === "image") continue;
    if (name === "mask_crop" && !fields.mask) continue;
    if (name === "mask_feather" && !fields.mask && !fields.expand) continue;
    if (["keyframes", "motion"].includes(name) && mode !== "video") continue;
    if (name === "control" && mode !== "image") continue;
    if (["negative_prompt"].includes(name) && !value.trim()) continue;
    job[name] = value;
  }
  if (mode === "video" && job.keyframes) {
    delete job.prompt;
    job.keyframes = fitted(job.keyframes, job.num_frames ?? fieldOf(schema, "num_frames")?.fallback);
  }
  if (job.aspect_ratio) {
    delete job.width;
    delete job.height;
  }
  if (job.control) job.control = job.control.filter((map) => map.image); // those that are only begun: missing.js
  if (job.loras) job.loras = job.loras.filter((lora) => lora.path?.trim());
  for (const name of ["control", "loras"]) if (job[name]?.length === 0) delete job[name];
  return job;
}

// Keyframes of a video that has become shorter keep their order and their distances.
export function fitted(keyframes, frames) {
  const last = keyframes.at(-1)?.frame ?? 0;
  if (last < frames) return keyframes;
  let least = 0;
  return keyframes.map((one) => {
    const frame = Math.max(least, Math.round((one.frame * (frames - 1)) / last));
    least = frame + 1;
    return { ...one, frame };
  });
}

// The form as it was for a finished task.
export function takeSettings(parameters) {
  const fields = {};
  for (const [name, value] of Object.entries(parameters)) {
    const isEmpty = value === null || (Array.isArray(value) && value.length === 0);
    if (isEmpty || ["type", "response_format", "preview", "cache", ...PICTURES].includes(name)) continue;
    fields[name] = value;
  }
  if (fields.aspect_ratio) {
    delete fields.width;
    delete fields.height;
  }
  const now = draft.get().fields;
  if (fields.control) fields.control = fields.control.map((map, i) => ({ ...map, image: now.control?.[i]?.image }));
  const pictures = Object.fromEntries(Object.entries(now).filter(([name]) => PICTURES.includes(name)));
  const mode = parameters.type === "video" ? "video" : parameters.image ? "edit" : "image";
  draft.update((before) => ({ ...before, mode, fields: { ...pictures, ...fields }, isSeedLocked: true }));
}

function kept() {
  try {
    return { ...EMPTY, ...JSON.parse(sessionStorage.getItem(NAME) ?? "{}") };
  } catch {
    return EMPTY;
  }
}
