// Result files as object URLs, fetched with the credential, the latest few dozen kept.
import * as api from "./api.js";
import { session } from "./session.js";
import { useEffect, useState } from "./ui.js";

const KEPT = 80;
const held = new Map(); // "task/index" -> Promise of {url, blob}

export function fileOf(id, index) {
  const name = `${id}/${index}`;
  const known = held.get(name);
  if (known) {
    held.delete(name);
    held.set(name, known); // the latest stays longest
    return known;
  }
  const made = api.result(id, index).then((blob) => ({ blob, url: URL.createObjectURL(blob) }));
  held.set(name, made);
  made.catch(() => held.get(name) === made && held.delete(name));
  if (held.size > KEPT) drop([...held.keys()][0]);
  return made;
}

session.watch(() => [...held.keys()].forEach(drop));

export function dropFilesOf(id) {
  for (const name of [...held.keys()]) if (name.startsWith(`${id}/`)) drop(name);
}

// The file's URL once it is there; `error` where it cannot be had.
export function useFile(id, index, isWanted = true) {
  const name = `${id}/${index}`;
  const [state, setState] = useState({});
  useEffect(() => {
    let isCurrent = true;
    if (isWanted) {
      fileOf(id, index).then(
        (file) => isCurrent && setState({ name, url: file.url, error: null }),
        (error) => isCurrent && setState({ name, url: null, error }),
      );
    }
    return () => { isCurrent = false; };
  }, [id, index, isWanted]);
  return state.name === name ? state : { url: null, error: null }; // not that of the file before
}

function drop(name) {
  held.get(name)?.then(({ url }) => setTimeout(() => URL.revokeObjectURL(url), 1000), () => {});
  held.delete(name);
}
