// One polite live region for milestones: queued, finished, failed. Progress itself is not read aloud.
import { html } from "./ui.js";
import { createStore, useStore } from "./store.js";

const said = createStore("");

const GAP_MS = 50; // an unchanged text would not be read again
const LEAST_MS = 200; // for a reader to notice one before the next
const waiting = [];

export function say(text) {
  if (waiting.push(text) === 1) next();
}

function next() {
  said.set("");
  setTimeout(() => {
    said.set(waiting[0]);
    setTimeout(() => {
      waiting.shift();
      if (waiting.length > 0) next();
    }, LEAST_MS);
  }, GAP_MS);
}

export const Status = () => html`<p role="status" class="status">${useStore(said)}</p>`;
