// Server-sent events by fetch, since EventSource sends no Authorization header.
import { events } from "./api.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;

// Call `take(name, data)` for each event until `signal` aborts; reconnects with Last-Event-ID. `onState` hears "open" and
// "away". Throws the Problem of an answer that no repetition mends.
export async function follow(take, { signal, onState = () => {} }) {
  let lastId = "";
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    try {
      const response = await events(lastId ? { "Last-Event-ID": lastId } : {}, signal);
      if (response.status !== 204) {
        onState("open");
        wait = FIRST_WAIT_MS;
        for await (const event of parsed(response.body)) {
          if (event.id) lastId = event.id;
          take(event.name, event.data);
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401 || error.status === 403) throw error;
      if (error.retryAfter) wait = error.retryAfter * 1000;
    }
    onState("away");
    await pause(wait, signal);
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}

export async function* parsed(body) {
  let name = "message";
  let id = "";
  let data = [];
  for await (const line of lines(body)) {
    if (line === "") {
      if (data.length > 0) yield { name, id, data: JSON.parse(data.join("\n")) };
      name = "message";
      data = [];
      continue;
    }
    const [, key, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (key === "event") name = value;
    else if (key === "data") data.push(value);
    else if (key === "id") id = value;
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split(/\r\n|\n|\r/);
      rest = parts.pop();
      yield* parts;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Resolves after `ms`, or at once when the page comes back: a locked phone's timers may sleep for hours.
function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      document.removeEventListener("visibilitychange", seen);
      resolve();
    };
    const seen = () => document.visibilityState === "visible" && done();
    const timer = setTimeout(done, ms);
    addEventListener("online", done);
    document.addEventListener("visibilitychange", seen);
    signal.addEventListener("abort", done, { once: true });
  });
}
