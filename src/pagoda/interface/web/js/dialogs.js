// Questions that need an answer first: each opens the page's one dialog and gives a promise.

import { byId, el } from "./dom.js";
import { t } from "./i18n.js";

/** True if the user agrees. */
export function confirmAction(title, text, label) {
  const ok = el("button", { type: "submit", class: "danger" }, label);
  return ask(title, [el("p", {}, text)], ok, () => true);
}

/** A text, or null. */
export function askText(title, label, value) {
  const input = el("input", { type: "text", id: "dialog-input", maxlength: "200", autocomplete: "off" });
  input.value = value;
  const ok = el("button", { type: "submit", class: "primary" }, t("dialog.save"));
  return ask(title, [el("label", { for: "dialog-input" }, label), input], ok, () => input.value.trim() || null);
}

/** `{ key, remember }`, or null. */
export function askKey(message) {
  const input = el("input", { type: "password", id: "dialog-input", autocomplete: "off", spellcheck: "false" });
  const remember = el("input", { type: "checkbox", id: "dialog-remember" });
  const parts = [
    el("p", {}, message || t("key.text")),
    el("label", { for: "dialog-input" }, t("key.label")),
    input,
    el("label", { class: "check", for: "dialog-remember" }, remember, t("key.remember")),
  ];
  const ok = el("button", { type: "submit", class: "primary" }, t("key.use"));
  return ask(t("key.title"), parts, ok, () => (input.value.trim() ? { key: input.value.trim(), remember: remember.checked } : null));
}

/** Show the keys that the page knows: rows of [keys, meaning]. */
export function showKeys(rows) {
  const list = el("dl", { class: "keys" }, ...rows.flatMap(([keys, meaning]) => [el("dt", {}, ...keyCaps(keys)), el("dd", {}, meaning)]));
  return ask(t("shortcuts.title"), [list], null, () => null);
}

const keyCaps = (keys) => keys.split("+").flatMap((key, at) => [at ? "+" : null, el("kbd", {}, key)]);

function ask(title, parts, ok, answer) {
  const dialog = byId("dialog");
  const back = document.activeElement;
  return new Promise((resolve) => {
    let result = null;
    const cancel = el("button", { type: "button", class: "plain", onclick: () => dialog.close() }, t(ok ? "dialog.cancel" : "dialog.close"));
    const form = el("form", {}, el("h2", { id: "dialog-title" }, title), ...parts, el("div", { class: "dialog-foot" }, cancel, ok));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      result = answer();
      if (result !== null) dialog.close();
    });
    dialog.replaceChildren(form);
    dialog.onclose = () => {
      back?.focus?.();
      resolve(result);
    };
    dialog.onclick = (event) => {
      if (event.target === dialog) dialog.close(); // the backdrop
    };
    dialog.showModal();
    (form.querySelector("input") ?? cancel).focus();
    form.querySelector("input[type=text]")?.select();
  });
}
