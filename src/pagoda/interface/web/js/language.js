// The switch between the languages of the page: its button names the other one.

import { language, onLanguage, setLanguage } from "./i18n.js";

export function startLanguage(button) {
  const draw = () => {
    const other = language() === "zh" ? "en" : "zh";
    button.textContent = other === "zh" ? "中文" : "English";
    button.lang = other;
    button.dataset.next = other;
  };
  button.addEventListener("click", () => setLanguage(button.dataset.next));
  onLanguage(draw);
  draw();
}
