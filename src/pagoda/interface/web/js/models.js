// The choice of models: what the server has, and what the conversation on screen asked for.

import { chatModels } from "./api.js";
import { byId, el } from "./dom.js";
import { onLanguage, t } from "./i18n.js";

export class ModelChoice {
  #select = byId("model");
  #models = [];
  #wanted = "";

  /** `onChoose(id)` is told of the user's choice. */
  constructor(onChoose) {
    this.#select.addEventListener("change", () => {
      this.#wanted = this.#select.value;
      onChoose(this.#wanted);
    });
    onLanguage(() => this.#draw());
  }

  /** Ask the server; errors are the caller's. */
  async refresh() {
    this.#models = await chatModels();
    this.#draw();
    return this.#models.length;
  }

  /** Select `id`, or the default if it is empty. */
  show(id) {
    this.#wanted = id;
    this.#draw();
  }

  /** The model that will answer. */
  get chosen() {
    return this.#wanted || this.#default();
  }

  #default() {
    return (this.#models.find((model) => model.default) ?? this.#models[0])?.id ?? "";
  }

  #draw() {
    const options = this.#models.map(({ id, state }) => {
      const note = state === "ready" ? "" : ` · ${t(`model.state.${state === "unloaded" ? "unloaded" : "other"}`, { state })}`;
      return el("option", { value: id }, id + note);
    });
    const isKnown = this.#models.some((model) => model.id === this.chosen);
    if (!isKnown) {
      const label = this.chosen ? `${this.chosen} · ${t("model.missing")}` : t("model.none");
      options.unshift(el("option", { value: this.chosen }, label));
    }
    this.#select.replaceChildren(...options);
    this.#select.value = this.chosen;
  }
}
