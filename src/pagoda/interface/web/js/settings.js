// The panel with the settings of the conversation on screen: system prompt, temperature, length.

import { byId } from "./dom.js";

const NUMBERS = { temperature: { low: 0, high: 2 }, length: { low: 1, high: 131072, whole: true } };

export class SettingsPanel {
  #panel = byId("settings");
  #toggle = byId("settings-toggle");
  #onChange;

  /** `onChange(settings)` gets what changed, and only what is valid. */
  constructor(onChange) {
    this.#onChange = onChange;
    this.#toggle.addEventListener("click", () => this.open(this.#panel.hidden));
    byId("settings-close").addEventListener("click", () => this.open(false));
    this.#panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.open(false);
    });
    byId("system").addEventListener("input", (event) => this.#onChange({ system: event.target.value }));
    for (const name of Object.keys(NUMBERS)) byId(name).addEventListener("input", () => this.#read(name));
  }

  show(settings) {
    byId("system").value = settings.system;
    for (const name of Object.keys(NUMBERS)) {
      byId(name).value = settings[name] ?? "";
      byId(name).removeAttribute("aria-invalid");
    }
    this.mark(settings);
  }

  open(open) {
    this.#panel.hidden = !open;
    this.#toggle.setAttribute("aria-expanded", String(open));
    (open ? byId("system") : this.#toggle).focus();
  }

  #read(name) {
    const input = byId(name);
    const { low, high, whole } = NUMBERS[name];
    const empty = input.value === "" && !input.validity.badInput;
    const value = input.valueAsNumber;
    const valid = empty || (value >= low && value <= high && (!whole || Number.isInteger(value)));
    input.setAttribute("aria-invalid", String(!valid));
    if (valid) this.#onChange({ [name]: empty ? null : value });
  }

  /** A dot on the button says that something here differs from the model's own. */
  mark({ system, temperature, length }) {
    this.#toggle.classList.toggle("marked", Boolean(system.trim()) || temperature !== null || length !== null);
  }
}
