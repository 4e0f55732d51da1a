// Light, dark, or as the system says; the switch goes round these three.

import { setIcon } from "./dom.js";
import { onLanguage, t } from "./i18n.js";
import { preferences } from "./storage.js";

const THEMES = ["auto", "light", "dark"];
const ICONS = { auto: "auto", light: "sun", dark: "moon" };

export function startTheme(button) {
  const shown = () => document.documentElement.dataset.theme ?? "auto";
  const draw = () => {
    const label = t(`theme.${shown()}`);
    setIcon(button, ICONS[shown()]);
    button.setAttribute("aria-label", label);
    button.title = label;
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(shown()) + 1) % THEMES.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    preferences.set("theme", next);
    draw();
  });
  onLanguage(draw);
  draw();
}
