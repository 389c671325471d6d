// The caller's tasks, newest first: pages of the list, kept true by the event stream.
import * as api from "./api.js";
import { session } from "./session.js";
import { createStore } from "./store.js";
import { follow } from "./stream.js";

export const FINAL = ["completed", "failed", "cancelled"];
export const isFinal = (task) => FINAL.includes(task.status);

export const tasks = createStore(new Map()); // by id
export const connection = createStore("connecting"); // open, away
const FIRST = { next: null, isLoading: false, isComplete: false, fault: null };
export const page = createStore(FIRST);

const listeners = new Set();
const forgotten = new Set(); // ids: what is still said of a task that was deleted does not bring it back

session.watch(reset); // before the next one who signs in sees anything

// Hear of tasks that reach an end: `listener(task)`.
export function onEnd(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export const newestFirst = (map) => [...map.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1));

// Take what is known of a task. Events may come twice, and answers late: an end is never undone, what has begun never
// waits again, and progress never falls.
export function learn(said) {
  if (forgotten.has(said.task_id)) return;
  const before = tasks.get().get(said.task_id);
  if (before && isFinal(before) && !isFinal(said)) return;
  if (before?.status === "processing" && said.status === "queued") return;
  const merged = { ...before, ...said };
  if (before && !isFinal(said)) merged.progress = Math.max(before.progress ?? 0, said.progress ?? 0);
  tasks.update((map) => new Map(map).set(said.task_id, merged));
  if (isFinal(merged) && before && !isFinal(before)) for (const listener of listeners) listener(merged);
}

// Take the answer to the request that made a task: what the stream has said of it since is newer.
export const learnOfNew = (said) => learn(isFinal(said) ? said : { ...said, ...tasks.get().get(said.task_id) });

export function forget(id) {
  forgotten.add(id);
  tasks.update((map) => {
    const rest = new Map(map);
    rest.delete(id);
    return rest;
  });
}

// Older tasks, or with the first call the newest. Where they do not come, the page's `fault` says why.
export async function loadMore() {
  const { next, isLoading, isComplete } = page.get();
  if (isLoading || isComplete) return;
  const loading = { ...page.get(), isLoading: true };
  const finish = (state) => page.get() === loading && page.set({ ...state, isLoading: false }); // not after a reset
  page.set(loading);
  try {
    const found = await api.tasks(next);
    for (const task of found.tasks) learn(task);
    finish({ next: found.next, isComplete: !found.next, fault: null });
  } catch (error) {
    finish({ next, isComplete, fault: error.message });
  }
}

export function start(signal) {
  follow(
    (name, data) => {
      if (name === "snapshot") {
        for (const task of data.tasks) learn(task);
        askForOthers(data.tasks, signal);
      } else if (data.task_id) learn(data);
    },
    { signal, onState: (state) => signal.aborted || connection.set(state) },
  ).catch(() => signal.aborted || connection.set("away"));
}

// A snapshot after a gap has the newest tasks alone: how the others that were under way went on is asked for.
async function askForOthers(told, signal) {
  const ids = new Set(told.map((task) => task.task_id));
  for (const { task_id: id, status } of [...tasks.get().values()]) {
    if (FINAL.includes(status) || ids.has(id)) continue;
    try {
      const said = await api.status(id);
      if (signal.aborted) return;
      learn(said);
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 404) forget(id);
    }
  }
}

function reset() {
  forgotten.clear();
  tasks.set(new Map());
  page.set(FIRST);
  connection.set("connecting");
}
