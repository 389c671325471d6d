// What a draft still lacks before it can be sent: the first field that somebody has begun and not filled, and what to do.
import { t } from "./texts.js";

export function missing({ mode, fields }, schema) {
  if (mode === "edit" && !fields.image && !fields.images) return lack("image", "edit.image.none");
  const { loras = [], control = [], keyframes = [] } = fields;
  const lora = loras.findIndex((one) => !one.path?.trim());
  if (lora >= 0) return lack(`loras[${lora}].path`, "form.lora.none");
  const map = mode === "image" && "control" in schema.properties ? control.findIndex((one) => !one.image) : -1;
  if (map >= 0) return lack(`control[${map}].image`, "map.image.none");
  const keyframe = mode === "video" ? keyframes.findIndex((one) => !one.prompt?.trim()) : -1;
  return keyframe >= 0 ? lack(`keyframes[${keyframe}].prompt`, "video.keyframe.none") : null;
}

const lack = (field, text) => ({ field, message: t(text) });
