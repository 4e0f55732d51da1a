// Copying text, also on a page served over plain HTTP from another machine, where the clipboard API is missing.

import { icon } from "./dom.js";
import { t } from "./i18n.js";
import { announce } from "./notices.js";

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // no such API here, or the browser refused it
  }
}

function copyBySelection(text) {
  const area = document.createElement("textarea");
  const focused = document.activeElement;
  area.value = text;
  area.className = "hidden";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return done;
}

/** A button that copies what `source()` gives and says so for a moment. */
export function copyButton(label, source, className = "icon") {
  const button = document.createElement("button");
  button.type = "button";
  button.className = className;
  button.setAttribute("aria-label", label);
  button.title = label;
  button.append(icon("copy"));
  let timer = 0;
  button.addEventListener("click", async () => {
    const done = await copyText(source());
    announce(t(done ? "copy.done" : "copy.failed"));
    button.replaceChildren(icon(done ? "check" : "close"));
    clearTimeout(timer);
    timer = setTimeout(() => button.replaceChildren(icon("copy")), 1600);
  });
  return button;
}
