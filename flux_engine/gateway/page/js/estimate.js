// What the draft would take, asked of the API a moment after the last change.
import { html, useEffect, useState } from "./ui.js";
import * as api from "./api.js";
import { duration, t } from "./texts.js";

const QUIET_MS = 400;

// `asked` is the job as text.
export function Estimate({ job, asked, onProblem }) {
  const [said, setSaid] = useState(null);
  useEffect(() => {
    if (!(job.keyframes ?? [job]).every((one) => one.prompt?.trim())) {
      setSaid(null);
      onProblem(null);
      return undefined;
    }
    const asking = new AbortController();
    const timer = setTimeout(async () => {
      try {
        setSaid(await api.estimate(job, asking.signal));
        onProblem(null);
      } catch (error) {
        if (asking.signal.aborted) return;
        setSaid(null);
        onProblem(error.status === 400 || error.status === 422 ? error : null);
      }
    }, QUIET_MS);
    return () => {
      clearTimeout(timer);
      asking.abort();
    };
  }, [asked]);
  return html`<p class="estimate">${said ? inWords(said) : t("form.estimate.none")}</p>`;
}

export function inWords(said) {
  if (said.cached) return t("form.estimate.cached");
  const seconds = said.seconds?.warm ?? said.seconds_warm ?? said.seconds;
  const cost = said.cost_usd?.warm ?? said.cost_usd;
  const parts = [t("form.estimate.work", { work: Math.round(said.work * 100) / 100 })];
  if (typeof seconds === "number") parts.unshift(duration(seconds));
  if (typeof cost === "number") parts.push(`${cost} USD`);
  return parts.join(" · ");
}
