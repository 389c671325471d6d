// The seed: free, rolled, or kept.
import { html } from "./ui.js";
import { Field } from "./controls.js";
import { draft, lockSeed, setField } from "./draft.js";
import { Icon } from "./icons.js";
import { useStore } from "./store.js";
import { t } from "./texts.js";

export const roll = () => crypto.getRandomValues(new Uint32Array(1))[0];

export function Seed({ field, error }) {
  const { fields, isSeedLocked } = useStore(draft);
  const set = (value) => {
    setField("seed", value);
    lockSeed(value !== undefined);
  };
  const take = (event) => set(Number.isNaN(event.currentTarget.valueAsNumber) ? undefined : event.currentTarget.valueAsNumber);
  return html`<${Field} label=${t("form.seed")} error=${error} hint=${isSeedLocked ? "" : t("form.seed.any")}>
    ${(own) => html`<span class="joined">
      <input ...${own} type="number" min="0" max=${field.high} step="1" value=${fields.seed ?? ""} onInput=${take} />
      <button type="button" class="icon" title=${t("form.seed.dice")} aria-label=${t("form.seed.dice")}
        onClick=${() => set(roll())}><${Icon} name="dice" /></button>
      <button type="button" class="icon" title=${t("form.seed.lock")} aria-label=${t("form.seed.lock")}
        aria-pressed=${String(isSeedLocked)} onClick=${() => lockSeed(!isSeedLocked && fields.seed !== undefined)}
        ><${Icon} name=${isSeedLocked ? "locked" : "unlocked"} /></button>
    </span>`}
  <//>`;
}
