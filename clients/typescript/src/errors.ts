// What a call can fail with. Each is a FluxClientError; `jobId` is there once a job has one.

export class FluxClientError extends Error {
  constructor(
    message: string,
    readonly jobId?: string,
  ) {
    super(message);
    this.name = new.target.name;
  }
}

/** The endpoint did not answer, whatever was tried. */
export class NotReached extends FluxClientError {}

/** The platform answered with an error of its own; `status` is HTTP's. */
export class Refused extends FluxClientError {
  constructor(
    message: string,
    readonly status: number,
    jobId?: string,
  ) {
    super(message, jobId);
  }
}

/** The worker's error. `code` is one of the contract's, `field` the part of the job that it is about. */
export class JobFailed extends FluxClientError {
  readonly code: string;
  readonly field: string | undefined;
  readonly retryable: boolean;

  /** `error` of the platform's answer is the worker's JSON text, or the platform's own words. */
  constructor(error: unknown, jobId: string) {
    const known = (typeof error === "string" && objectIn(error)) || { message: String(error).slice(0, 500), retryable: true };
    super(typeof known["message"] === "string" ? known["message"] : "the job failed", jobId);
    this.code = typeof known["code"] === "string" ? known["code"] : "internal";
    this.field = typeof known["field"] === "string" ? known["field"] : undefined;
    this.retryable = known["retryable"] === true;
  }
}

/** Somebody took the job back. */
export class JobCancelled extends FluxClientError {}

/** The job ran longer than the platform lets a job run. */
export class JobTimedOut extends FluxClientError {}

/** A finished job whose result is missing, or a file that is not the one that the result names. */
export class ResultLost extends FluxClientError {}

/** The JSON object that `text` is, if it is one. */
export function objectIn(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
