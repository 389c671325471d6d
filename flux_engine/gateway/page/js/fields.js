// What the API offers, read from its own description: models, and for each the JSON Schema of its jobs. Bounds, defaults
// and choices come from there and stand nowhere else on the page.
import * as api from "./api.js";
import { createStore } from "./store.js";

export const offer = createStore(null);

export async function loadOffer() {
  offer.set(await api.capabilities());
}

export const models = (offered) => offered.models;

export const modelNamed = (offered, id) =>
  models(offered).find((model) => model.id === id) ??
  models(offered).find((model) => model.id === offered.default_model) ??
  models(offered)[0];

// The schema of one kind of job with `model`, or null where it makes none: {properties: {prompt: {...}}}.
export const schemaOf = (offered, model, kind) => (model && offered.schemas[kind]?.[model.id]) ?? null;

// The fields within the object `name`, as a schema of their own.
export const partsOf = (schema, name) => ({ ...schema, properties: plain(schema, schema.properties[name]).properties ?? {} });

// One field as the page's controls take it, or null where the model does not have it.
export function fieldOf(schema, name) {
  const said = schema?.properties?.[name];
  if (!said) return null;
  const one = plain(schema, said);
  return {
    name,
    type: one.type,
    low: one.minimum ?? (one.exclusiveMinimum !== undefined ? one.exclusiveMinimum : null),
    high: one.maximum ?? (one.exclusiveMaximum !== undefined ? one.exclusiveMaximum : null),
    step: one.type === "integer" ? one.multipleOf ?? 1 : "any",
    choices: choicesOf(one.enum),
    fallback: one.default ?? null,
    longest: one.maxLength ?? null,
    most: one.maxItems ?? listOf(schema, said)?.maxItems ?? null,
    about: one.description ?? "",
  };
}

// Without null, which leaves a field out, and without a second spelling of a choice.
const choicesOf = (all) => all?.filter((one) => one !== null && !(one === "jpeg" && all.includes("jpg"))) ?? null;

// A field may be written in several ways (a number or a schedule, a value or null): the plainest is what a person sets.
function plain(schema, said) {
  const resolved = said.$ref ? { ...lookedUp(schema, said.$ref), ...said, $ref: undefined } : said;
  const ways = resolved.anyOf ?? resolved.oneOf;
  if (!ways) return withType(resolved);
  const simple = ways.map((way) => plain(schema, way)).find((way) => way.type !== "null" && way.type !== "array");
  return { ...(simple ?? plain(schema, ways[0])), default: resolved.default, description: resolved.description };
}

// The way of writing a field as a list, where it has one.
const listOf = (schema, said) => (said.anyOf ?? []).map((way) => plain(schema, way)).find((way) => way.type === "array");

const withType = (said) => (Array.isArray(said.type) ? { ...said, type: said.type.find((type) => type !== "null") } : said);

const lookedUp = (schema, ref) => ref.slice(2).split("/").reduce((place, key) => place[key], schema);
