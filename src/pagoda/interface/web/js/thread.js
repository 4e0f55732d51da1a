// The conversation on screen. Draws at most once a frame, and then only the message that grew.

import { copyButton } from "./clipboard.js";
import { decorate } from "./code.js";
import { byId, el, icon } from "./dom.js";
import { errorText } from "./errors.js";
import { t } from "./i18n.js";
import { MarkdownView } from "./markdown.js";
import { endNote, statParts } from "./statistics.js";

/** Older answers of a long conversation are drawn when the reader comes near: opening it stays quick. */
const DRAWN_AT_ONCE = 12;
const NEAR = "1500px 0px";
/** A screen reader cannot be stopped in the middle of an announcement; the rest is there to be read. */
const MOST_SPOKEN = 1000;

export class Thread {
  #place = byId("thread");
  #waiting = new Map();
  #watcher = new IntersectionObserver((seen) => this.#drawSeen(seen), { root: byId("scroller"), rootMargin: NEAR });
  #views = new Map();
  #growing = new Set();
  #frame = 0;
  #actions;

  /** `actions`: { regenerate(message), edit(message, text) }. */
  constructor(actions) {
    this.#actions = actions;
  }

  show(conversation) {
    this.#views.clear();
    this.#growing.clear();
    this.#watcher.disconnect();
    this.#waiting.clear();
    const { messages } = conversation;
    this.#place.replaceChildren(...messages.map((message, at) => this.#make(message, at < messages.length - DRAWN_AT_ONCE).element));
    for (const element of this.#waiting.keys()) this.#watcher.observe(element);
    this.#markLast();
  }

  append(message) {
    this.#place.append(this.#make(message, false).element);
    this.#markLast();
  }

  #make(message, later) {
    const view = message.role === "user" ? new Question(message, this.#actions) : new Answer(message, this.#actions, later);
    this.#views.set(message.id, view);
    if (later && view instanceof Answer) this.#waiting.set(view.element, view);
    return view;
  }

  #drawSeen(seen) {
    for (const { isIntersecting, target } of seen) {
      if (!isIntersecting) continue;
      this.#watcher.unobserve(target);
      this.#waiting.get(target)?.finish();
      this.#waiting.delete(target);
    }
  }

  /** `message` has more text: draw it with the next frame. */
  grow(message) {
    const view = this.#views.get(message.id);
    if (!view) return; // another conversation is on screen
    this.#growing.add(view);
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      for (const grown of this.#growing) grown.grow();
      this.#growing.clear();
    });
  }

  /** Draw `message` for good. */
  finish(message) {
    const view = this.#views.get(message.id);
    this.#growing.delete(view);
    view?.finish();
  }

  /** The beginning of the finished answer without its markup, for reading aloud; empty if it is not on screen. */
  spoken(message) {
    const text = this.#views.get(message.id)?.text() ?? "";
    return text.length > MOST_SPOKEN ? `${text.slice(0, MOST_SPOKEN)}…` : text;
  }

  editLast() {
    const questions = [...this.#views.values()].filter((view) => view instanceof Question);
    questions.at(-1)?.edit();
  }

  /** Only the last answer can be asked for again. */
  #markLast() {
    const views = [...this.#views.values()];
    for (const view of views) view.element.classList.toggle("last", view === views.at(-1));
  }
}

class Question {
  #message;
  #body = el("div", { class: "bubble" });
  #tools = el("div", { class: "tools" });
  #send;

  constructor(message, actions) {
    this.#message = message;
    this.#send = (text) => actions.edit(message, text);
    const heading = el("h2", { class: "hidden" }, t("message.you"));
    this.element = el("article", { class: "message question", "data-role": "user" }, heading, this.#body, this.#tools);
    this.#draw();
  }

  edit() {
    const area = el("textarea", { "aria-label": t("message.edit"), rows: "3" });
    area.value = this.#message.content;
    const cancel = el("button", { type: "button", class: "plain", onclick: () => this.#draw(true) }, t("dialog.cancel"));
    const send = el("button", { type: "submit", class: "primary" }, t("message.resend"));
    const form = el("form", { class: "edit" }, area, el("div", { class: "dialog-foot" }, cancel, send));
    const submit = () => area.value.trim() && this.#send(area.value.trim());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      submit();
    });
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        this.#draw(true);
      }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
    });
    this.#body.replaceChildren(form);
    this.element.classList.add("editing");
    area.focus();
  }

  #draw(focus = false) {
    this.element.classList.remove("editing");
    this.#body.replaceChildren(el("p", { class: "plain-text" }, this.#message.content));
    const edit = toolButton("edit", t("message.edit"), () => this.edit());
    this.#tools.replaceChildren(copyButton(t("message.copy"), () => this.#message.content), edit);
    if (focus) edit.focus();
  }
}

class Answer {
  #message;
  #actions;
  #body = el("div", { class: "prose" });
  #thought = el("div", { class: "thought" });
  #reasoning;
  #foot = el("div", { class: "foot" });
  #markdown = new MarkdownView(this.#body, decorate);

  /** With `later` the answer stands there as plain text until `finish` is called. */
  constructor(message, actions, later) {
    this.#message = message;
    this.#actions = actions;
    this.#reasoning = el("details", { class: "reasoning", hidden: true }, el("summary", {}, t("message.reasoning")), this.#thought);
    const heading = el("h2", { class: "who" }, message.model || t("message.assistant"));
    this.element = el("article", { class: "message answer", "data-role": "assistant" }, heading, this.#reasoning, this.#body, this.#foot);
    if (later) this.#body.append(el("p", { class: "plain-text" }, message.content));
    else if (message.stats?.total != null || message.error) this.finish();
    else this.#wait();
  }

  grow() {
    this.#drawReasoning();
    if (!this.#message.content) return;
    this.#markdown.grow(this.#message.content);
    this.element.classList.remove("waiting");
  }

  finish() {
    const { content, error } = this.#message;
    this.element.classList.remove("waiting", "busy");
    this.element.removeAttribute("aria-busy");
    this.#drawReasoning();
    this.#markdown.finish(content);
    const parts = [];
    if (error) parts.push(errorBox(error));
    const note = endNote(this.#message);
    if (note) parts.push(el("span", { class: "end-note" }, note));
    const tools = el("div", { class: "tools" });
    if (content) tools.append(copyButton(t("message.copy"), () => content));
    tools.append(toolButton("retry", t("message.regenerate"), () => this.#actions.regenerate(this.#message), "again"));
    const stats = el("ul", { class: "stats", "aria-label": t("stats.label") });
    stats.append(...statParts(this.#message).map((part) => el("li", {}, part)));
    this.#foot.replaceChildren(...parts, el("div", { class: "foot-line" }, tools, stats));
  }

  text() {
    return this.#body.textContent.trim();
  }

  #wait() {
    this.element.classList.add("busy", "waiting");
    this.element.setAttribute("aria-busy", "true");
    if (this.#message.content) this.grow();
  }

  #drawReasoning() {
    if (!this.#message.reasoning) return;
    this.#reasoning.hidden = false;
    this.#thought.textContent = this.#message.reasoning;
  }
}

function toolButton(drawing, label, onclick, extra = "") {
  return el("button", { type: "button", class: `icon ${extra}`, "aria-label": label, title: label, onclick }, icon(drawing));
}

/** What went wrong, in the server's words if it sent some. */
function errorBox(error) {
  const box = el("div", { class: "error", role: "group", "aria-label": t("error.title") }, el("p", {}, errorText(error)));
  const id = error.requestId;
  if (id) box.append(el("p", { class: "request-id" }, `${t("error.request")} `, el("code", {}, id), copyButton(t("error.copy"), () => id)));
  return box;
}
