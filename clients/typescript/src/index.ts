// A client for an endpoint of flux-engine on RunPod: jobs, their progress, and their files.

export { type AnyJob, FluxClient, Job, type Options, withSeed } from "./client.js";
export { FluxClientError, JobCancelled, JobFailed, JobTimedOut, NotReached, Refused, ResultLost } from "./errors.js";
export type { Box, Control, Expand, ImageJob, Keyframe, Lora, Motion, VideoJob } from "./job.js";
export { type File, filesOf, type Progress, progressOf, type Result, resultOf } from "./result.js";
