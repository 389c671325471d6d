// FluxClient: an endpoint of flux-engine on RunPod.
//
//   const client = new FluxClient("endpoint-id", { apiKey });
//   const job = await client.submit({ prompt: "a red sun", seed: 7 });
//   for await (const progress of job) console.log(progress.stage, progress.progress);
//   const result = await job.result();
//   const bytes = await client.read(filesOf(result)[0]!);
//
// A request without an answer, and 408, 429 and 5xx, is sent again, later each time. A job that may have been submitted
// twice is one result all the same: its seed is chosen here, so both are one entry of the endpoint's cache. A job that
// failed for a reason that may pass goes back into the queue under its own id, and one that the platform forgot is
// submitted again.

import { JobCancelled, JobFailed, JobTimedOut, NotReached, objectIn, Refused, ResultLost } from "./errors.js";
import type { ImageJob, VideoJob } from "./job.js";
import { type File, type Progress, type Result, progressOf, resultOf } from "./result.js";

export type AnyJob = ImageJob | VideoJob;

export interface Options {
  readonly apiKey: string;
  readonly baseUrl?: string;
  /** How often one request is sent, one job is put back, and one is submitted. */
  readonly tries?: number;
}

interface Answer {
  readonly status: number;
  readonly content: Uint8Array;
  readonly body: Record<string, unknown>; // empty where the content is no JSON object
  readonly retryAfterMs: number | undefined;
}

const PASSING = [408, 429]; // and 5xx, of which proxies in front have more than HTTP
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 8000;
const SILENCE_MS = 60_000;

export class FluxClient {
  readonly #base: string;
  readonly #key: string;
  readonly tries: number;

  constructor(endpointId: string, { apiKey, baseUrl = "https://api.runpod.ai/v2", tries = 6 }: Options) {
    this.#base = `${baseUrl}/${endpointId}`;
    this.#key = apiKey;
    this.tries = tries;
  }

  /** Have a job done. */
  async run(job: AnyJob): Promise<Result> {
    return (await this.submit(job)).result();
  }

  /** Hand over a job. */
  async submit(job: AnyJob): Promise<Job> {
    const seeded = withSeed(job);
    return new Job(this, await this.send(seeded), seeded);
  }

  /** A job that was submitted before, here or elsewhere. */
  job(id: string): Job {
    return new Job(this, id);
  }

  /** What the endpoint serves: models, schemas of jobs, limits, LoRAs. */
  async capabilities(): Promise<Record<string, unknown>> {
    return this.#ask({ op: "capabilities" });
  }

  /** What `job` would take, without having it done. */
  async estimate(job: AnyJob): Promise<Record<string, unknown>> {
    return this.#ask({ ...job, op: "estimate" });
  }

  /** The bytes of a result's file, compared with its hash. */
  async read(file: File): Promise<Uint8Array> {
    const bytes = file.b64_json === undefined ? await this.#download(file) : decoded(file.b64_json);
    const digest = await crypto.subtle.digest("SHA-256", bytes.slice().buffer);
    if (hex(new Uint8Array(digest)) !== file.sha256) {
      throw new ResultLost("a file is not the one that the result names");
    }
    return bytes;
  }

  /** Take a job back; one that is finished stays so. */
  async cancel(id: string): Promise<void> {
    await this.request("POST", `/cancel/${id}`, undefined, [400, 404]);
  }

  /** For Job: submit an input; the job's id. */
  async send(input: Record<string, unknown>): Promise<string> {
    const answer = await this.request("POST", "/run", { input });
    const id = answer.body["id"];
    if (typeof id !== "string") throw new Refused("the endpoint answered without a job's id", answer.status);
    return id;
  }

  /** For Job: an answer to a request of this endpoint that is a success or one of `also`. */
  async request(method: "GET" | "POST", path: string, body?: unknown, also: number[] = []): Promise<Answer> {
    const headers = { Authorization: `Bearer ${this.#key}`, "Content-Type": "application/json" };
    const init = body === undefined ? { method, headers } : { method, headers, body: JSON.stringify(body) };
    return this.#answered(this.#base + path, init, also);
  }

  async #ask(input: Record<string, unknown>): Promise<Record<string, unknown>> {
    const steps = new Job(this, await this.send(input))[Symbol.asyncIterator]();
    for (;;) {
      const step = await steps.next();
      if (step.done) return step.value as Record<string, unknown>;
    }
  }

  async #download(file: File): Promise<Uint8Array> {
    if (file.url === undefined) throw new ResultLost("the result holds neither an address nor the bytes of this file");
    return (await this.#answered(file.url, { method: "GET" }, [])).content;
  }

  async #answered(url: string, init: RequestInit, also: number[]): Promise<Answer> {
    let last: Answer | undefined;
    let reason = "";
    for (let attempt = 0; attempt < this.tries; attempt++) {
      try {
        last = await exchanged(url, init);
      } catch (error) {
        last = undefined;
        reason = String(error);
      }
      if (last !== undefined) {
        if ((last.status >= 200 && last.status < 300) || also.includes(last.status)) return last;
        if (!PASSING.includes(last.status) && last.status < 500) break;
      }
      if (attempt + 1 < this.tries) {
        await wait(last?.retryAfterMs || Math.min(FIRST_WAIT_MS * 2 ** attempt, LONGEST_WAIT_MS));
      }
    }
    if (last === undefined) throw new NotReached(`no answer after ${this.tries} tries: ${reason}`);
    const said = last.body["error"];
    throw new Refused(typeof said === "string" ? said : `the endpoint answered ${last.status}`, last.status);
  }
}

/** A job on its way: iterate over its progress, then take its result. */
export class Job implements AsyncIterable<Progress> {
  #id: string;
  #isCancelled = false;
  #ended: { readonly output: unknown } | undefined;

  constructor(
    private readonly client: FluxClient,
    id: string,
    private readonly input?: Record<string, unknown>,
  ) {
    this.#id = id;
  }

  /** Another one where the platform forgot the job and it was submitted again. */
  get id(): string {
    return this.#id;
  }

  /** Wait for the result. */
  async result(): Promise<Result> {
    const steps = this[Symbol.asyncIterator]();
    let step = await steps.next();
    while (!step.done) step = await steps.next();
    return resultOf(step.value, this.#id);
  }

  /** Take the job back; one that is finished stays so. */
  async cancel(): Promise<void> {
    this.#isCancelled = true;
    await this.client.cancel(this.#id);
  }

  /** Progress until the job is finished; its output is the iterator's value. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Progress, unknown, undefined> {
    if (this.#ended !== undefined) return this.#ended.output;
    let putBack = 0;
    let lost = 0;
    for (let polls = 0; ; ) {
      const { status, body } = await this.client.request("GET", `/status/${this.#id}`, undefined, [404]);
      const state = body["status"];
      if (status === 404) {
        if (this.input === undefined || lost++ >= this.client.tries) {
          throw new ResultLost("the endpoint does not know this job, or no longer", this.#id);
        }
        this.#id = await this.client.send(this.input);
        if (this.#isCancelled) await this.cancel();
      } else if (state === "COMPLETED") {
        this.#ended = { output: body["output"] };
        return this.#ended.output;
      } else if (state === "CANCELLED") {
        throw new JobCancelled("the job was cancelled", this.#id);
      } else if (state === "TIMED_OUT") {
        throw new JobTimedOut("the job ran longer than the endpoint lets one run", this.#id);
      } else if (state === "FAILED") {
        const error = new JobFailed(body["error"], this.#id);
        if (!error.retryable || putBack >= this.client.tries) throw error;
        putBack++;
        await wait(Math.min(FIRST_WAIT_MS * 2 ** putBack, LONGEST_WAIT_MS));
        await this.client.request("POST", `/retry/${this.#id}`, undefined, [400, 404]);
        if (this.#isCancelled) await this.cancel(); // which found it failed, and nothing to take back
      } else if (typeof state !== "string") { // another page in front of it: asked for ever, it would not change
        throw new Refused("the endpoint answered without the job's status", status, this.#id);
      } else {
        yield progressOf(body["output"]);
        await wait(polls++ < 10 ? 200 : 1000);
      }
    }
  }
}

/** `job` with a seed, so that it is the same job when it is sent again. */
export function withSeed(job: AnyJob): Record<string, unknown> {
  const seed = job.seed ?? -1;
  return { ...job, seed: seed === -1 ? Math.floor(Math.random() * Number.MAX_SAFE_INTEGER) : seed };
}

/** An answer with its whole body. Rejects where the connection breaks before its end, or says nothing for a minute. */
async function exchanged(url: string, init: RequestInit): Promise<Answer> {
  const silence = new AbortController();
  const giveUp = () => silence.abort(new Error(`nothing came for ${SILENCE_MS / 1000} s`));
  let timer = setTimeout(giveUp, SILENCE_MS);
  try {
    const response = await fetch(url, { ...init, signal: silence.signal });
    const parts: Uint8Array<ArrayBuffer>[] = [];
    const reader = response.body?.getReader();
    for (let part = await reader?.read(); part !== undefined && !part.done; part = await reader?.read()) {
      clearTimeout(timer);
      timer = setTimeout(giveUp, SILENCE_MS);
      parts.push(part.value);
    }
    return answerOf(response, new Uint8Array(await new Blob(parts).arrayBuffer()));
  } finally {
    clearTimeout(timer);
  }
}

function answerOf(response: Response, content: Uint8Array): Answer {
  const isJson = response.headers.get("Content-Type")?.includes("json") ?? false;
  const after = Number(response.headers.get("Retry-After") ?? Number.NaN);
  return {
    status: response.status,
    content,
    body: (isJson && objectIn(new TextDecoder().decode(content))) || {},
    retryAfterMs: Number.isFinite(after) ? after * 1000 : undefined,
  };
}

function wait(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function decoded(base64: string): Uint8Array {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    throw new ResultLost("a file in the result is no base64");
  }
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
