// What the page tells the user outside the conversation: spoken status, toasts, and one lasting banner.

import { byId, el, icon } from "./dom.js";
import { t } from "./i18n.js";

/** Say `text` to screen readers, once. */
export function announce(text) {
  const status = byId("status");
  status.textContent = "";
  requestAnimationFrame(() => {
    status.textContent = text;
  });
}

/** Show `text` for a few seconds. */
export function toast(text, kind = "info") {
  const note = el("div", { class: `toast ${kind}` }, text);
  byId("toasts").append(note);
  announce(text);
  setTimeout(() => note.remove(), 6000);
}

/** Show `text` until it is closed or replaced; an empty text hides it. `action` is an optional { label, run }. */
export function banner(text, action = null) {
  const place = byId("banner");
  place.replaceChildren();
  place.hidden = !text;
  if (!text) return;
  place.append(el("span", {}, text));
  if (action) place.append(el("button", { type: "button", class: "quiet", onclick: action.run }, action.label));
  const close = { type: "button", class: "icon", "aria-label": t("notice.close"), onclick: () => banner("") };
  place.append(el("button", close, icon("close")));
}
