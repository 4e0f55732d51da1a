// Questions and their answers on the knowledge page: citations are buttons that open what they stand for.

import { byId, el } from "./dom.js";
import { errorText } from "./errors.js";
import { onLanguage, t } from "./i18n.js";

const VERDICTS = { supported: "knowledge.supported", contradicted: "knowledge.contradicted", not_found: "knowledge.not_found" };
const CITATION = /\[(\d+)\]/g;

export class Answers {
  #place = byId("thread");
  #drawings = [];
  #open;

  /** `open(passage)` is called when a citation or source is chosen. */
  constructor(open) {
    this.#open = open;
    onLanguage(() => {
      for (const draw of this.#drawings) draw();
    });
  }

  clear() {
    this.#place.replaceChildren();
    this.#drawings = [];
  }

  /** A question with room for its answer: `{ piece(text), done(answer), checked(claims), fail(error), stopped(), remove() }`. */
  add(question) {
    const text = el("div", { class: "answer-text prose" });
    const rest = el("div", {});
    const article = el("article", { class: "message answer waiting", "aria-busy": "true" }, text, rest);
    const asked = el("article", { class: "message question" }, el("div", { class: "bubble plain-text" }, question));
    this.#place.append(asked, article);
    article.scrollIntoView({ block: "end" });
    const known = {};
    const draw = () => {
      if (known.answer) text.replaceChildren(...this.#cited(known.answer));
      rest.replaceChildren(...this.#rest(known, question));
    };
    this.#drawings.push(draw);
    const end = (how) => {
      Object.assign(known, how);
      draw();
      article.classList.remove("waiting");
      article.removeAttribute("aria-busy");
      article.scrollIntoView({ block: "nearest" });
    };
    return {
      piece: (more) => {
        article.classList.remove("waiting");
        text.append(more);
      },
      done: (answer) => end({ answer }),
      checked: (claims) => {
        known.claims = claims;
        rest.append(...this.#claims(claims));
      },
      fail: (error) => end({ error }),
      stopped: () => end({ stopped: true }),
      remove: () => {
        asked.remove();
        article.remove();
      },
    };
  }

  /** What stands below an answer, or in its place. */
  #rest({ answer, claims, error, stopped }, question) {
    if (error) return [el("div", { class: "error", role: "group", "aria-label": t("error.title") }, el("p", {}, errorText(error)))];
    if (stopped) return [el("p", { class: "end-note" }, t("message.stopped"))];
    if (!answer) return [];
    return [...this.#sources(answer, question), ...this.#claims(claims ?? [])];
  }

  #cited({ answer, citations }) {
    const parts = [];
    let from = 0;
    for (const found of answer.matchAll(CITATION)) {
      const passage = citations.find(({ number }) => number === Number(found[1]));
      if (!passage) continue;
      parts.push(answer.slice(from, found.index), this.#button("cite", passage, [found[1]]));
      from = found.index + found[0].length;
    }
    return [...parts, answer.slice(from)];
  }

  #sources({ outcome, citations, passages = [], query }, question) {
    const parts = query === question ? [] : [el("p", { class: "note" }, t("knowledge.searched", { query }))];
    const shown = citations.length ? citations : passages;
    if (!shown.length) return parts;
    const title = citations.length ? "knowledge.sources" : outcome === "answered" ? "knowledge.uncited" : "knowledge.nearest";
    const rows = shown.map((passage) => {
      const where = el("span", { class: "where" }, passage.title, el("br"), el("small", {}, passage.heading || passage.source));
      return el("li", {}, this.#button("", passage, [el("span", { class: "number" }, `[${passage.number}]`), where]));
    });
    return [...parts, el("p", { class: "sources-title" }, t(title)), el("ol", { class: "sources" }, ...rows)];
  }

  /** Each claim with what the documents say to it, and the sentences that say so. */
  #claims(claims) {
    const judged = claims.filter(({ verdict }) => verdict in VERDICTS);
    if (!judged.length) return [];
    const rows = judged.map(({ claim, verdict, evidence }) => {
      const places = evidence.map((span) => {
        const attributes = { type: "button", class: "cite", title: t("knowledge.from", span), onclick: () => this.#open(span) };
        return el("button", attributes, span.text);
      });
      return el("li", { class: verdict }, el("span", { class: "verdict" }, t(VERDICTS[verdict])), el("span", {}, claim), ...places);
    });
    return [el("p", { class: "sources-title" }, t("knowledge.claims")), el("ul", { class: "claims" }, ...rows)];
  }

  #button(kind, passage, inside) {
    const label = t("knowledge.open", passage);
    const attributes = { type: "button", class: kind || null, "aria-label": label, title: label };
    return el("button", { ...attributes, onclick: () => this.#open(passage) }, ...inside);
  }
}
