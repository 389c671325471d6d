// The page's entry: one App in #app.
import { html, render } from "../vendor/preact.js";
import { App } from "./app.js";

render(html`<${App} />`, document.getElementById("app"));
