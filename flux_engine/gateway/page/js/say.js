// One polite live region for milestones: queued, finished, failed. Progress itself is not read aloud.
import { html } from "./ui.js";
import { createStore, useStore } from "./store.js";

const said = createStore("");

export function say(text) {
  said.set("");
  setTimeout(() => said.set(text), 50); // an unchanged text would not be read again
}

export const Status = () => html`<p role="status" class="status">${useStore(said)}</p>`;
