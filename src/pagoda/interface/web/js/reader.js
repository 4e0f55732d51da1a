// The passage that a citation stands for, highlighted within its document.

import { byId, el } from "./dom.js";
import { errorText } from "./errors.js";
import { number, onLanguage, t } from "./i18n.js";
import { documentText } from "./library.js";

/** How much of the document stands around the passage, characters. */
const AROUND = 4000;

export class Reader {
  #place = byId("reader");
  #back = null;
  #asked = 0;
  #sayPlace = () => {};

  /** `onClose` is called when the user closes it. */
  constructor(onClose) {
    const close = () => {
      this.hide();
      this.#back?.focus?.();
      onClose();
    };
    onLanguage(() => this.#sayPlace());
    byId("reader-close").addEventListener("click", close);
    this.#place.addEventListener("keydown", (event) => {
      if (event.key === "Escape") close();
    });
  }

  hide() {
    this.#place.hidden = true;
    this.#asked += 1;
  }

  /** Show the characters from `start` to `end` of a document. Places count characters, not JavaScript's half ones. */
  async show(collection, { document: id, start, end }) {
    if (this.#place.hidden) this.#back = document.activeElement;
    const asked = ++this.#asked;
    this.#place.hidden = false;
    try {
      const found = await documentText(collection, id, start - AROUND, end + AROUND);
      if (asked === this.#asked) this.#draw(found, start, end);
    } catch (error) {
      if (asked !== this.#asked) return;
      this.#say(() => [t("knowledge.reader"), error.status === 404 ? t("knowledge.gone") : errorText(error)]);
      byId("reader-text").replaceChildren();
    }
  }

  #draw(found, start, end) {
    const letters = [...found.text];
    const cut = (from, to) => letters.slice(Math.max(0, from - found.start), Math.max(0, to - found.start)).join("");
    const passage = el("mark", {}, cut(start, end));
    const before = (found.start > 0 ? "… " : "") + cut(found.start, start);
    const after = cut(end, found.end) + (found.end < found.length ? " …" : "");
    this.#say(() => [found.title, t("knowledge.place", { source: found.source, start: number(start), end: number(end) })]);
    byId("reader-text").replaceChildren(before, passage, after);
    passage.scrollIntoView({ block: "center" });
    byId("reader-text").focus({ preventScroll: true });
  }

  /** Show a title and a note, in whatever language is chosen. */
  #say(words) {
    this.#sayPlace = () => {
      [byId("reader-title").textContent, byId("reader-place").textContent] = words();
    };
    this.#sayPlace();
  }
}
