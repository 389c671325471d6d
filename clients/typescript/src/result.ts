// What a job gives: progress while it runs, and a result with its files.

import { ResultLost } from "./errors.js";

/** How far a job is. `stage` is `waiting` until a worker has taken it; `preview` is a data URI. */
export interface Progress {
  readonly stage: string;
  readonly progress: number;
  readonly step?: number;
  readonly total_steps?: number;
  readonly frame?: number;
  readonly total_frames?: number;
  readonly eta_seconds?: number;
  readonly preview?: string;
}

/** A picture, a video or a thumbnail: behind `url`, or in `b64_json`. A client's `read` gives its bytes. */
export interface File {
  readonly content_type: string;
  readonly width: number;
  readonly height: number;
  readonly sha256: string;
  readonly bytes: number;
  readonly seed?: number;
  readonly fps?: number;
  readonly num_frames?: number;
  readonly duration?: number;
  readonly url?: string;
  readonly b64_json?: string;
}

/** A finished job. */
export interface Result {
  readonly images?: readonly File[];
  readonly video?: File;
  readonly thumbnail?: File;
  readonly seed: number;
  readonly model: Record<string, unknown>;
  readonly parameters: Record<string, unknown>;
  readonly cached: boolean;
  readonly warnings: readonly string[];
  readonly timings?: Record<string, number>;
  readonly usage?: { readonly work: number; readonly gpu_seconds: number; readonly cost_usd?: number };
  readonly metadata?: Record<string, unknown>;
  readonly expires_at?: string;
}

/** The pictures of a result, or its video. */
export function filesOf(result: Result): readonly File[] {
  return result.images ?? (result.video ? [result.video] : []);
}

/** `output` as a result. Throws ResultLost for what is none, as where the platform dropped one over its limit. */
export function resultOf(output: unknown, jobId: string): Result {
  if (typeof output === "object" && output !== null && ("images" in output || "video" in output)) {
    return output as Result;
  }
  throw new ResultLost("the job finished without a result; with a large one set a bucket", jobId);
}

/** What `/status` shows of a job on its way. */
export function progressOf(output: unknown): Progress {
  const shown = typeof output === "object" && output !== null ? (output as Partial<Progress>) : {};
  return { ...shown, stage: shown.stage ?? "waiting", progress: shown.progress ?? 0 };
}
