// The prompt, and how much of it the model reads.
import { html } from "./ui.js";
import { TextField } from "./controls.js";
import { t } from "./texts.js";

const TOKENS_A_WORD = 1.35; // English prose in CLIP's and T5's vocabularies; the worker counts exactly and warns

export const tokensOf = (text) => Math.ceil((text.match(/\p{L}+|\p{N}|[^\s\p{L}\p{N}]/gu) ?? []).length * TOKENS_A_WORD);

export function Prompt({ value, limit, field, onChange, error, label = t("form.prompt"), rows = 3 }) {
  const n = tokensOf(value ?? "");
  const hint = limit ? t(n > limit ? "form.tokens.over" : "form.tokens", { n, limit }) : "";
  return html`<${TextField} label=${label} hint=${hint} value=${value} error=${error} rows=${rows} onChange=${onChange}
    maxlength=${field?.longest ?? undefined} placeholder=${t("form.prompt.hint")} name="prompt" autocomplete="off" />`;
}
