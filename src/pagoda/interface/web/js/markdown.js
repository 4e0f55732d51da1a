// Markdown of a model as elements of the page, safely. Two walls: raw HTML in the Markdown is shown as text, and whatever
// comes out of the parser passes DOMPurify with a short list of tags. The Content-Security-Policy is the third.

import { Marked } from "../vendor/marked/marked.esm.js";
import "../vendor/dompurify/purify.min.js";

const { DOMPurify } = globalThis;

const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escapeHtml = (text) => text.replace(/[&<>"']/g, (sign) => escapes[sign]);

const marked = new Marked({ gfm: true, breaks: false, async: false });
marked.use({
  renderer: {
    html: ({ text }) => escapeHtml(text),
    // An image would be fetched from wherever the model says, and tell that place that it was read.
    image: ({ href, text }) => `<a href="${escapeHtml(href)}">${escapeHtml(text || href)}</a>`,
    code: ({ text, lang }) => {
      const name = (lang ?? "").match(/^[\w+#.-]{1,30}/)?.[0] ?? "";
      return `<pre><code${name ? ` class="language-${escapeHtml(name)}"` : ""}>${escapeHtml(text)}\n</code></pre>`;
    },
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

const ALLOWED = {
  ALLOWED_TAGS:
    "a b blockquote br code del em h1 h2 h3 h4 h5 h6 hr i li ol p pre s span strong sub sup table tbody td th thead tr ul".split(" "),
  ALLOWED_ATTR: ["href", "class", "start", "align"],
  ADD_URI_SAFE_ATTR: ["start", "align"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const OUR_CLASS = /^(?:language-[\w+#.-]{1,30}|hljs[\w-]*)(?:\s+(?:hljs[\w-]*|[a-z]+_))*$/;

/** Elements from markup that is not trusted. */
export function sanitize(html) {
  const fragment = DOMPurify.sanitize(html, ALLOWED);
  for (const element of fragment.querySelectorAll("[class]")) {
    if (!OUR_CLASS.test(element.className)) element.removeAttribute("class"); // no dressing up as parts of this page
  }
  for (const link of fragment.querySelectorAll("a")) {
    link.rel = "noopener noreferrer nofollow";
    link.target = "_blank";
  }
  return fragment;
}

export const render = (text) => sanitize(marked.parse(text));

/** How many blocks at the end of a growing text may still change their nature when more arrives. */
const LIVE_BLOCKS = 3;

/**
 * A growing text shown in `place`. Only its last blocks are parsed and drawn again, so a long answer costs no more per
 * frame than a short one. `finish` draws the whole once more: link definitions at the end apply to the beginning.
 */
export class MarkdownView {
  #place;
  #decorate;
  #live = [];
  #offset = 0;

  /** `decorate(element, finished)` is called for each block drawn. */
  constructor(place, decorate = () => {}) {
    this.#place = place;
    this.#decorate = decorate;
  }

  /** Show `text`, which starts with the text shown before. */
  grow(text) {
    const blocks = marked.lexer(text.slice(this.#offset)).map((token) => ({ raw: token.raw, nodes: null }));
    let same = 0;
    while (same < this.#live.length && same < blocks.length && this.#live[same].raw === blocks[same].raw) same += 1;
    for (const block of this.#live.slice(same)) for (const node of block.nodes) node.remove();
    this.#live = this.#live.slice(0, same);
    for (const block of blocks.slice(same)) {
      const fragment = render(block.raw);
      this.#decorate(fragment, false);
      block.nodes = [...fragment.childNodes];
      this.#place.append(fragment);
      this.#live.push(block);
    }
    while (this.#live.length > LIVE_BLOCKS) this.#offset += this.#live.shift().raw.length;
  }

  /** Show the whole `text` for good. */
  finish(text) {
    const fragment = render(text);
    this.#decorate(fragment, true);
    this.#place.replaceChildren(fragment);
    this.#live = [];
    this.#offset = text.length;
  }
}
