// The caller's tasks, newest first, without an end. One under way stands where its picture will be, so that nothing moves
// when it comes. Arrow keys move through what is finished.
import { html, useEffect, useRef, useState } from "./ui.js";
import { countOf, isVideo, promptOf, seedOf, shapeOf } from "./asked.js";
import { useFile } from "./files.js";
import { Icon } from "./icons.js";
import { UnderWay } from "./underway.js";
import { useStore } from "./store.js";
import { isFinal, loadMore, newestFirst, page, tasks } from "./tasks.js";
import { t } from "./texts.js";

export function Gallery({ onOpen }) {
  const all = newestFirst(useStore(tasks));
  const { isComplete } = useStore(page);
  const end = useRef(null);
  useEffect(() => {
    const watcher = new IntersectionObserver(
      (seen) => seen.some((one) => one.isIntersecting) && loadMore().catch(() => {}),
      { rootMargin: "600px" },
    );
    watcher.observe(end.current);
    return () => watcher.disconnect();
  }, [all.length, isComplete]);
  const places = all.flatMap((task) => Array.from({ length: placesOf(task) }, (_, index) => ({ task, index })));
  return html`<section class="gallery" aria-labelledby="gallery-title">
    <h2 id="gallery-title">${t("gallery.title")}</h2>
    ${places.length === 0 && html`<p class="note">${t("gallery.none")}</p>`}
    <ul onKeyDown=${moveBetween}>
      ${places.map(({ task, index }) => html`<${Place} key=${`${task.task_id}/${index}`} task=${task} index=${index} onOpen=${onOpen} />`)}
    </ul>
    <div ref=${end}>${!isComplete && html`<button type="button" class="quiet"
      onClick=${() => loadMore().catch(() => {})}>${t("gallery.more")}</button>`}</div>
  </section>`;
}

// A failed or cancelled task takes one place, whatever it was asked for.
const placesOf = (task) => (isFinal(task) && task.status !== "completed" ? 1 : countOf(task));

function Place({ task, index, onOpen }) {
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
      ? html`<${Card} task=${task} index=${index} isNear=${isNear} onOpen=${onOpen} />`
      : html`<${UnderWay} task=${task} index=${index} />`}
  </li>`;
}

function Card({ task, index, isNear, onOpen }) {
  const isMade = task.status === "completed";
  const shownIndex = isVideo(task) ? 1 : index; // a video's thumbnail is its second file
  const { url, error } = useFile(task.task_id, shownIndex, isNear && isMade);
  const prompt = promptOf(task);
  return html`<button type="button" class="card" style=${{ aspectRatio: shapeOf(task) }} data-task=${task.task_id}
      data-index=${index} aria-label=${t("gallery.open", { prompt })} onClick=${() => onOpen(task.task_id, index)}>
      ${url && html`<img src=${url} alt="" />`}
      ${!isMade && html`<span class=${`state ${task.status}`}>${t(`gallery.${task.status}`)}</span>`}
      ${error && html`<span class="state">${error.status === 410 ? t("gallery.expired") : error.message}</span>`}
      ${isVideo(task) && html`<span class="badge" aria-hidden="true"><${Icon} name="play" /></span>`}
    </button>
    <p class="caption"><span class="line" dir="auto">${prompt}</span>
      <span class="line note">${t("form.seed")} ${seedOf(task, index)}</span></p>`;
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
