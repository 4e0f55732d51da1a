// Code blocks: a bar with the language and a copy button, and colours once the highlighter has been fetched.

import { copyButton } from "./clipboard.js";
import { el } from "./dom.js";
import { t } from "./i18n.js";
import { sanitize } from "./markdown.js";

/** Longer code stays plain while it grows, and longer still for good: colouring it would make the page stutter. */
const LIVE_LIMIT = 4_000;
const LIMIT = 60_000;

let highlighter = null;
let loading = null;

function load() {
  loading ??= import("../vendor/highlight/highlight.min.js").then(
    (module) => {
      highlighter = module.default;
    },
    () => {}, // the file is gone after an upgrade: code stays readable without colours
  );
  return loading;
}

/** Dress the code blocks and tables in `root`; `finished` says that no more text follows. */
export function decorate(root, finished) {
  for (const table of root.querySelectorAll("table")) {
    const frame = el("div", { class: "table-frame", tabindex: "0", role: "region", "aria-label": t("table.label") });
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const pre of root.querySelectorAll("pre")) {
    const code = pre.querySelector("code");
    if (!code) continue;
    const language = code.className.match(/language-(\S+)/)?.[1] ?? "";
    const bar = el("div", { class: "code-bar" }, el("span", {}, language || t("code.plain")));
    bar.append(copyButton(t("code.copy"), () => code.textContent.replace(/\n$/, "")));
    const frame = el("div", { class: "code-frame" }, bar);
    pre.replaceWith(frame);
    pre.tabIndex = 0;
    frame.append(pre);
    colour(code, language, finished ? LIMIT : LIVE_LIMIT);
  }
}

async function colour(code, language, limit) {
  const text = code.textContent;
  if (!language || text.length > limit) return;
  if (!highlighter) await load();
  if (!highlighter?.getLanguage(language)) return;
  const { value } = highlighter.highlight(text, { language, ignoreIllegals: true });
  code.replaceChildren(sanitize(value));
}
