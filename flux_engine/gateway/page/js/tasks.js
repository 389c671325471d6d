// The caller's tasks, newest first: pages of the list, kept true by the event stream.
import * as api from "./api.js";
import { createStore } from "./store.js";
import { follow } from "./stream.js";

export const FINAL = ["completed", "failed", "cancelled"];
export const isFinal = (task) => FINAL.includes(task.status);

export const tasks = createStore(new Map()); // by id
export const connection = createStore("connecting"); // open, away
export const page = createStore({ next: null, isLoading: false, isComplete: false });

const listeners = new Set();

// Hear of tasks that reach an end: `listener(task)`.
export function onEnd(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export const newestFirst = (map) => [...map.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1));

// Take what is known of a task. Events may come twice and late: an end is never undone, progress never falls.
export function learn(said) {
  const before = tasks.get().get(said.task_id);
  if (before && isFinal(before) && !isFinal(said)) return;
  const merged = { ...before, ...said };
  if (before && !isFinal(said)) merged.progress = Math.max(before.progress ?? 0, said.progress ?? 0);
  tasks.update((map) => new Map(map).set(said.task_id, merged));
  if (isFinal(merged) && before && !isFinal(before)) for (const listener of listeners) listener(merged);
}

export function forget(id) {
  tasks.update((map) => {
    const rest = new Map(map);
    rest.delete(id);
    return rest;
  });
}

export async function loadMore() {
  const { next, isLoading, isComplete } = page.get();
  if (isLoading || isComplete) return;
  page.set({ next, isLoading: true, isComplete });
  try {
    const found = await api.tasks(next);
    for (const task of found.tasks) learn(task);
    page.set({ next: found.next, isLoading: false, isComplete: !found.next });
  } catch (error) {
    page.set({ next, isLoading: false, isComplete });
    throw error;
  }
}

export function start(signal) {
  follow(
    (name, data) => {
      if (name === "snapshot") for (const task of data.tasks ?? [data]) learn(task);
      else if (data.task_id) learn(data);
    },
    { signal, onState: (state) => connection.set(state) },
  ).catch(() => connection.set("away"));
}

export function reset() {
  tasks.set(new Map());
  page.set({ next: null, isLoading: false, isComplete: false });
  connection.set("connecting");
}
