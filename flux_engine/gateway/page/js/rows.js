// Keys for the rows of a list whose items have none. A row keeps its key when it moves, and with it what is typed in it, its
// fault, and a file that is still being read.
import { useRef } from "./ui.js";

let last = 0;

export function useRows(count) {
  const keys = useRef([]);
  keys.current = Array.from({ length: count }, (_, index) => keys.current[index] ?? (last += 1));
  return {
    keys: keys.current,
    placeOf: (key) => keys.current.indexOf(key), // -1 of a row that is removed
    move: (from, to) => { keys.current = moved(keys.current, from, to); },
    remove: (index) => { keys.current = keys.current.filter((_, i) => i !== index); },
  };
}

export function moved(list, from, to) {
  const rest = list.filter((_, index) => index !== from);
  return [...rest.slice(0, to), list[from], ...rest.slice(to)];
}
