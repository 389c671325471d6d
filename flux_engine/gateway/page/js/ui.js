// What every component needs of Preact, and two hooks that the standalone build does not bring.
import { html, useLayoutEffect, useRef, useState } from "../vendor/preact.js";

export { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact.js";

let last = 0;

export const useId = () => useState(() => `f${(last += 1)}`)[0];

// `listener` hears `name` on the window for as long as the component is there, from the moment it is shown.
export function useWindow(name, listener) {
  const latest = useRef(listener);
  latest.current = listener;
  useLayoutEffect(() => {
    const hear = (event) => latest.current(event);
    addEventListener(name, hear);
    return () => removeEventListener(name, hear);
  }, [name]);
}

// The API's words: what stands between backquotes is code.
export const words = (text) => text.split("`").map((part, i) => (i % 2 ? html`<code key=${i}>${part}</code>` : part));
