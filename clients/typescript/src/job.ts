// The jobs that an endpoint takes. Made from the worker's schemas of jobs by `python -m builder.docs`; do not edit.

export interface Lora {
  /** Where the LoRA comes from */
  path: string;
  /** Strength */
  scale?: number;
}

export interface Expand {
  /** Pixels added on the left */
  left?: number;
  /** Pixels added on the right */
  right?: number;
  /** Pixels added above */
  top?: number;
  /** Pixels added below */
  bottom?: number;
}

export interface Control {
  /** What the picture shows */
  type: "canny" | "depth" | "pose" | "tile";
  /** The map itself; for canny any picture. Https URL, data URI or base64 */
  image: string;
  /** How closely it is followed */
  strength?: number;
  /** Share of the steps that follow it */
  end?: number;
}

export interface Box {
  /** What stands there */
  prompt: string;
  /** Left edge, a share of the width */
  x: number;
  /** Upper edge, a share of the height */
  y: number;
  /** A share of the width */
  width: number;
  /** A share of the height */
  height: number;
}

export interface Keyframe {
  /** Frame, from 0 */
  frame: number;
  /** What that frame shows */
  prompt: string;
  /** By default the job's */
  seed?: number;
}

export interface Motion {
  zoom?: number | Array<[number, number]>;
  pan_x?: number | Array<[number, number]>;
  pan_y?: number | Array<[number, number]>;
  rotate?: number | Array<[number, number]>;
}

/** A job that makes one to four pictures. */
export interface ImageJob {
  /** What the picture shows */
  prompt: string;
  /** What it does not show; needs `true_cfg_scale` > 1 */
  negative_prompt?: string;
  /** Classifier-free guidance */
  true_cfg_scale?: number;
  /** A model of this worker */
  model?: string;
  /** Pixels, rounded to a multiple of 16 */
  width?: number;
  /** Pixels, rounded to a multiple of 16 */
  height?: number;
  /** In place of width and height */
  aspect_ratio?: "1:1" | "16:9" | "21:9" | "3:2" | "2:3" | "4:5" | "5:4" | "3:4" | "4:3" | "9:16" | "9:21";
  /** Area, with `aspect_ratio` only */
  megapixels?: number;
  /** Denoising steps */
  num_inference_steps?: number;
  /** Distilled guidance */
  guidance_scale?: number;
  /** -1: derived from the job id */
  seed?: number;
  /** Adapters to apply */
  loras?: Array<string | Lora> | string | Lora;
  /** Scale of the LoRAs without one of their own */
  lora_scale?: number;
  /** Https URL, data URI or base64 of a picture to start from */
  image?: string;
  /** Quality of lossy formats */
  output_quality?: number;
  /** A link, or the file itself */
  response_format?: "url" | "b64_json";
  /** Text tokens that the model reads */
  max_sequence_length?: number;
  /** Progress carries small preview pictures */
  preview?: boolean;
  /** false: neither read nor write the result cache */
  cache?: boolean;
  /** Up to 4 KB of JSON, echoed */
  metadata?: Record<string, unknown>;
  /** Kind of job */
  type?: "image";
  /** Image i has seed + i */
  num_images?: number;
  /** The model's prompt upsampler writes the prompt out first */
  enhance_prompt?: boolean;
  /** As `image`; white is repainted */
  mask?: string;
  /** Pixels over which the seam is blended, inside the mask; needs `mask` or `expand` */
  mask_feather?: number;
  /** Cut the masked part out with this many pixels around it, draw it at the model's own size */
  mask_crop?: number;
  /** Pixels added to each side of `image` and painted */
  expand?: Expand;
  /** How many times the finished picture is enlarged */
  upscale?: 2 | 4;
  /** A map that the picture follows, or two, by a ControlNet on the volume */
  control?: Control | Array<Control>;
  /** How much of `image` is redrawn */
  strength?: number;
  /** File format */
  output_format?: "png" | "jpg" | "webp" | "jpeg";
  /** References in the order of "image 1", "image 2" in the prompt; in place of `image` */
  images?: Array<string>;
  /** List of `{prompt, x, y, width, height}`, shares of the sides */
  boxes?: Array<Box>;
}

/** A job that makes a video. */
export interface VideoJob {
  /** What the picture shows */
  prompt?: string;
  /** What it does not show; needs `true_cfg_scale` > 1 */
  negative_prompt?: string;
  /** Classifier-free guidance */
  true_cfg_scale?: number;
  /** A model of this worker */
  model?: string;
  /** Pixels, rounded to a multiple of 16 */
  width?: number;
  /** Pixels, rounded to a multiple of 16 */
  height?: number;
  /** In place of width and height */
  aspect_ratio?: "1:1" | "16:9" | "21:9" | "3:2" | "2:3" | "4:5" | "5:4" | "3:4" | "4:3" | "9:16" | "9:21";
  /** Area, with `aspect_ratio` only */
  megapixels?: number;
  /** Denoising steps */
  num_inference_steps?: number;
  /** Distilled guidance */
  guidance_scale?: number;
  /** -1: derived from the job id */
  seed?: number;
  /** Adapters to apply */
  loras?: Array<string | Lora> | string | Lora;
  /** Scale of the LoRAs without one of their own */
  lora_scale?: number;
  /** First frame, as an image job's; means `mode` feedback */
  image?: string;
  /** Quality of lossy formats */
  output_quality?: number;
  /** A link, or the file itself */
  response_format?: "url" | "b64_json";
  /** Text tokens that the model reads */
  max_sequence_length?: number;
  /** Progress carries small preview pictures */
  preview?: boolean;
  /** false: neither read nor write the result cache */
  cache?: boolean;
  /** Up to 4 KB of JSON, echoed */
  metadata?: Record<string, unknown>;
  /** Kind of job */
  type: "video";
  /** Or `duration` */
  num_frames?: number;
  /** Frames per second */
  fps?: number;
  /** Seconds, or `num_frames` */
  duration?: number;
  /** List of `{frame, prompt, seed?}`, or prompts by frame */
  keyframes?: Array<Keyframe> | Record<string, string>;
  /** How frames follow one another; `feedback` with `image` */
  mode?: "interpolate" | "feedback";
  /** `zoom`, `pan_x`, `pan_y`, `rotate`; needs `mode` feedback */
  motion?: Motion;
  /** How much of a frame is redrawn; needs `mode` feedback or `image` */
  strength?: number | Array<[number, number]>;
  /** Frames per second that the model makes; the rest are motion-interpolated */
  generated_fps?: number;
  /** The last frame leads back to the first */
  loop?: boolean;
  /** File format */
  output_format?: "mp4" | "webm" | "gif" | "webp";
}
