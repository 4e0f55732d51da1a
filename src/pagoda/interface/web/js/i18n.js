// The words of the page in the user's language. Elements name their word: data-i18n (text), -label, -placeholder, -title.

import { preferences } from "./storage.js";

export const LANGUAGES = ["en", "zh"];

const words = {};
let current = "en";
const listeners = [];

/** Load all languages (they are small) and apply the chosen, or else the browser's. */
export async function startWords() {
  await Promise.all(
    LANGUAGES.map(async (language) => {
      const response = await fetch(new URL(`../locales/${language}.json`, import.meta.url));
      words[language] = await response.json();
    }),
  );
  const wanted = [preferences.get("language"), ...(navigator.languages ?? [])].filter(Boolean);
  const known = wanted.map((tag) => tag.toLowerCase().split("-")[0]).find((tag) => LANGUAGES.includes(tag));
  apply(known ?? "en");
}

export const language = () => current;

/** The locale for numbers and dates. */
export const locale = () => (current === "zh" ? "zh-CN" : "en");

export function setLanguage(next) {
  preferences.set("language", next);
  apply(next);
  for (const listener of listeners) listener();
}

/** Call `listener` when the language changes. */
export const onLanguage = (listener) => listeners.push(listener);

/** The word called `key`, with `{name}` replaced from `values`. */
export function t(key, values = {}) {
  const text = words[current]?.[key] ?? words.en?.[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(locale(), { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/** Put the words into all marked elements below `root`. */
export function translate(root) {
  for (const element of root.querySelectorAll("[data-i18n]")) element.textContent = t(element.dataset.i18n);
  for (const element of root.querySelectorAll("[data-i18n-placeholder]")) {
    element.placeholder = t(element.dataset.i18nPlaceholder);
  }
  for (const element of root.querySelectorAll("[data-i18n-label]")) {
    const label = t(element.dataset.i18nLabel);
    element.setAttribute("aria-label", label);
    if (element.tagName === "BUTTON") element.title = label;
  }
}

function apply(next) {
  current = next;
  document.documentElement.lang = next === "zh" ? "zh-CN" : "en";
  translate(document.body);
}
