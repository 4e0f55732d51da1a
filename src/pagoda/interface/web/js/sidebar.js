// The list of conversations.

import { byId, el, icon } from "./dom.js";
import { Drawer } from "./drawer.js";
import { onLanguage, t } from "./i18n.js";

const DAY = 86_400_000;

export class Sidebar {
  #store;
  #actions;
  #current = null;
  #busy = () => false;
  #queued = false;
  #drawer = new Drawer();

  /** `actions`: { open(id), menu(button, conversation), isBusy(id) }. */
  constructor(store, actions) {
    this.#store = store;
    this.#actions = actions;
    this.#busy = actions.isBusy;
    store.addEventListener("list", () => this.draw());
    byId("search").addEventListener("input", () => this.draw());
    onLanguage(() => this.draw());
  }

  setCurrent(id) {
    this.#current = id;
    if (this.#drawer.isOpen()) this.#drawer.slide(false);
    this.draw();
  }

  focusSearch() {
    this.#drawer.slide(true);
    byId("search").focus();
  }

  /** Draw the list again, once for many calls in a row. */
  draw() {
    if (this.#queued) return;
    this.#queued = true;
    queueMicrotask(() => {
      this.#queued = false;
      this.#drawNow();
    });
  }

  #drawNow() {
    const place = byId("conversations");
    const query = byId("search").value;
    const found = this.#store.list(query);
    const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const parts = [];
    let heading = null;
    let list = null;
    for (const conversation of found) {
      const next = age(conversation.updated);
      if (next !== heading) {
        heading = next;
        list = el("ul", {});
        parts.push(el("h2", {}, t(heading)), list);
      }
      list.append(this.#row(conversation));
    }
    if (!found.length) parts.push(el("p", { class: "note" }, t(query ? "conversations.none_found" : "conversations.none")));
    place.replaceChildren(...parts);
    if (focused) place.querySelector(`[data-key="${focused}"]`)?.focus();
  }

  #row(conversation) {
    const { id } = conversation;
    const title = conversation.title || t("conversations.untitled");
    const isCurrent = id === this.#current;
    const open = el(
      "button",
      { type: "button", class: "open", "data-key": `open-${id}`, title, "aria-current": isCurrent ? "page" : null, onclick: () => this.#actions.open(id) },
      title,
    );
    if (this.#busy(id)) open.append(el("span", { class: "pulse", role: "img", "aria-label": t("conversations.busy") }));
    const label = t("conversations.options", { title });
    const more = el("button", { type: "button", class: "icon", "data-key": `more-${id}`, "aria-label": label, "aria-haspopup": "menu" }, icon("more"));
    more.addEventListener("click", () => this.#actions.menu(more, conversation));
    return el("li", { class: isCurrent ? "current" : null }, open, more);
  }
}

function age(time) {
  const today = new Date().setHours(0, 0, 0, 0);
  if (time >= today) return "conversations.today";
  return time >= today - 7 * DAY ? "conversations.week" : "conversations.older";
}
