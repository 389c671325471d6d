// Dark or light: the system's choice until somebody makes one here.
import { createStore } from "./store.js";

const NAME = "flux.theme";
const wantsDark = matchMedia("(prefers-color-scheme: dark)");

export const theme = createStore(localStorage.getItem(NAME) ?? (wantsDark.matches ? "dark" : "light"));

const show = (value) => { document.documentElement.dataset.theme = value; };

show(theme.get());
theme.watch(show);
wantsDark.addEventListener("change", (event) => localStorage.getItem(NAME) ?? theme.set(event.matches ? "dark" : "light"));

export function switchTheme() {
  const next = theme.get() === "dark" ? "light" : "dark";
  localStorage.setItem(NAME, next);
  theme.set(next);
}
