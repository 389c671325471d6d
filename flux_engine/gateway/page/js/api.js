// The REST API, one function an endpoint. Every failure is a Problem (RFC 9457) with the API's own words.
import { session, signOut } from "./session.js";
import { t } from "./texts.js";

export class Problem extends Error {
  constructor(status, body = {}, retryAfter = null) {
    super(body.detail ?? body.title ?? t("fault.unreachable")); // a proxy without a gateway behind it says neither
    this.status = status; // 0: the gateway could not be reached
    this.code = body.code ?? "unreachable";
    this.field = body.field ?? null;
    this.retryable = body.retryable ?? status === 0;
    this.retryAfter = retryAfter; // seconds
  }
}

// An answer that comes after its asker has signed out: the next one must not see it.
export class SignedOut extends Error {}

export async function call(path, { method = "GET", json, headers = {}, signal, credential = session.get() } = {}) {
  const request = { method, signal, headers: { Authorization: `Bearer ${credential}`, ...headers } };
  if (json !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(json);
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const wait = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  if (response.status === 401 && credential === session.get()) signOut();
  throw new Problem(response.status, body, Number.isNaN(wait) ? null : wait);
}

async function whole(path, options, take) {
  const asker = session.get();
  const found = await take(await call(path, options));
  if (session.get() !== asker) throw new SignedOut();
  return found;
}

const read = (path, options) => whole(path, options, (response) => response.json());
const file = (path, options) => whole(path, options, (response) => response.blob());
const task = (id) => `task/${encodeURIComponent(id)}`;

export const capabilities = (options) => read("capabilities", options);
export const estimate = (job, signal) => read("estimate", { method: "POST", json: job, signal });
export const usage = () => read("usage");
export const status = (id) => read(`${task(id)}/status`);
export const cancel = (id) => read(task(id), { method: "DELETE" });
export const remove = (id) => read(`${task(id)}?purge=1`, { method: "DELETE" });
export const again = (id, overrides) => read(`${task(id)}/again`, { method: "POST", json: overrides });
export const events = (headers, signal) => call("events", { headers: { Accept: "text/event-stream", ...headers }, signal });

// A new task, or a finished one where the cache has it. The key makes a repeat after a lost answer the same task.
export const create = (job) =>
  read(job.type === "video" ? "generate-video" : "generate-image", {
    method: "POST",
    json: job,
    headers: { "Idempotency-Key": randomKey() },
  });

export function tasks(cursor, limit = 24) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (cursor) query.set("cursor", cursor);
  return read(`tasks?${query}`);
}

export const result = (id, index) => file(`${task(id)}/result?index=${index}`);

function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
