// Signing in with an API key or a token. It is tried before it is kept.
import { html, useState } from "./ui.js";
import { call } from "./api.js";
import { Field, Toggle } from "./controls.js";
import { signIn } from "./session.js";
import { t } from "./texts.js";

export function SignIn() {
  const [credential, setCredential] = useState("");
  const [remember, setRemember] = useState(false);
  const [fault, setFault] = useState("");
  const [isTrying, setTrying] = useState(false);
  const send = async (event) => {
    event.preventDefault();
    setTrying(true);
    try {
      await call("tasks?limit=1", { credential: credential.trim() });
      signIn(credential.trim(), { remember });
    } catch (error) {
      setFault(saidOf(error));
    } finally {
      setTrying(false);
    }
  };
  return html`<main class="sign-in">
    <form onSubmit=${send}>
      <h1>FLUX</h1>
      <p class="note">${t("head.tagline")}</p>
      <${Field} label=${t("sign.key")} hint=${t("sign.help")} error=${fault} isWide=${true}>
        ${(own) => html`<input ...${own} type="password" autocomplete="current-password" required value=${credential}
          onInput=${(event) => setCredential(event.currentTarget.value)} />`}
      <//>
      <${Toggle} label=${t("sign.remember")} value=${remember} onChange=${setRemember} />
      <button type="submit" class="main" disabled=${isTrying}>${t("sign.go")}</button>
    </form>
  </main>`;
}

function saidOf(error) {
  if (error.status === 401) {
    return t("sign.wrong");
  }
  return error.code === "unreachable" ? t("sign.unreachable") : error.message;
}
