// The caller's tasks, newest first, without an end. One under way stands where its picture will be, so that nothing moves
// when it comes. Arrow keys move through what is finished.
import { html, useEffect, useRef, useState } from "./ui.js";
import { isVideo, isWithheld, placesOf, promptOf, shapeOf } from "./asked.js";
import { Fault } from "./controls.js";
import { useFile } from "./files.js";
import { Icon } from "./icons.js";
import { UnderWay } from "./underway.js";
import { useStore } from "./store.js";
import { isFinal, loadMore, newestFirst, page, tasks } from "./tasks.js";
import { t } from "./texts.js";

export function Gallery({ onOpen }) {
  const all = newestFirst(useStore(tasks));
  const { isComplete, fault } = useStore(page);
  const end = useRef(null);
  useEffect(() => {
    const watcher = new IntersectionObserver(
      (seen) => seen.some((one) => one.isIntersecting) && loadMore(),
      { rootMargin: "600px" },
    );
    watcher.observe(end.current);
    return () => watcher.disconnect();
  }, [all.length, isComplete]);
  const places = all.flatMap((task) => shownOf(task).map((place) => ({ task, place })));
  return html`<section class="gallery" aria-labelledby="gallery-title">
    <h2 id="gallery-title">${t("gallery.title")}</h2>
    ${places.length === 0 && html`<p class="note">${t("gallery.none")}</p>`}
    <ul onKeyDown=${moveBetween}>
      ${places.map(({ task, place }) => html`<${Place} key=${`${task.task_id}/${place.index}`} task=${task} place=${place}
        onOpen=${onOpen} />`)}
    </ul>
    <div ref=${end}>${!isComplete && html`<button type="button" class="quiet" onClick=${loadMore}>${t("gallery.more")}</button>
      <${Fault} text=${fault} />`}</div>
  </section>`;
}

// A failed or cancelled task takes one place, whatever it was asked for.
const shownOf = (task) => placesOf(task).slice(0, isFinal(task) && task.status !== "completed" ? 1 : undefined);

function Place({ task, place, onOpen }) {
  const { index } = place;
  const box = useRef(null);
  const [isNear, setNear] = useState(false);
  useEffect(() => {
    const watcher = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && setNear(true), { rootMargin: "300px" });
    watcher.observe(box.current);
    return () => watcher.disconnect();
  }, []);
  const isDone = isFinal(task);
  return html`<li ref=${box} class=${isDone || index > 0 ? "" : "under-way"} id=${index === 0 ? `task-${task.task_id}` : undefined}>
    ${isDone
      ? html`<${Card} task=${task} place=${place} isNear=${isNear} onOpen=${onOpen} />`
      : html`<${UnderWay} task=${task} index=${index} />`}
  </li>`;
}

function Card({ task, place, isNear, onOpen }) {
  const { index, file } = place;
  const isMade = task.status === "completed" && file !== null;
  const shownFile = isVideo(task) ? 1 : file; // a video's thumbnail is its second file
  const { url, error } = useFile(task.task_id, shownFile, isNear && isMade);
  const prompt = promptOf(task);
  const end = isMade ? null : place.withheld || isWithheld(task) ? "withheld" : task.status;
  const opens = [t("gallery.open", { prompt }), end && t(`gallery.${end}`)].filter(Boolean).join(": ");
  return html`<button type="button" class="card" style=${{ aspectRatio: shapeOf(task) }} data-task=${task.task_id}
      data-index=${index} aria-label=${opens} onClick=${() => onOpen(task.task_id, index)}>
      ${url && html`<img src=${url} alt="" />`}
      ${end && html`<span class=${`state ${end}`}>${t(`gallery.${end}`)}</span>`}
      ${error && html`<span class="state">${error.status === 410 ? t("gallery.expired") : error.message}</span>`}
      ${isVideo(task) && html`<span class="badge" aria-hidden="true"><${Icon} name="play" /></span>`}
    </button>
    <p class="caption"><span class="line" dir="auto">${prompt}</span>
      <span class="line note">${t("form.seed")} ${place.seed}</span></p>`;
}

const STEPS = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };

function moveBetween(event) {
  const cards = [...event.currentTarget.querySelectorAll(".card")];
  const at = cards.indexOf(document.activeElement);
  let step = STEPS[event.key];
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const columns = cards.filter((card) => card.offsetTop === cards[0].offsetTop).length;
    step = event.key === "ArrowDown" ? columns : -columns;
  }
  if (at < 0 || !step) return;
  event.preventDefault();
  cards[Math.min(cards.length - 1, Math.max(0, at + step))].focus();
}
