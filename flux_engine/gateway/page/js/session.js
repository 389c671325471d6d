// Who is signed in. The credential stays in memory; with `remember` it is in sessionStorage, which ends with the tab.
import { createStore } from "./store.js";

const NAME = "flux.credential";

export const session = createStore(sessionStorage.getItem(NAME) ?? "");

export function signIn(credential, { remember }) {
  if (remember) sessionStorage.setItem(NAME, credential);
  else sessionStorage.removeItem(NAME);
  session.set(credential);
}

export function signOut() {
  sessionStorage.removeItem(NAME);
  session.set("");
}
