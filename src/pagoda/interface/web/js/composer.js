// Where the user writes. Enter sends, Shift+Enter breaks the line, and an input method's Enter only chooses characters.

import { byId } from "./dom.js";

export class Composer {
  #area = byId("prompt");
  #send = byId("send");
  #stop = byId("stop");
  #busy = false;

  /** `actions`: { send(text) -> whether it was taken, stop(), editLast() }. */
  constructor(actions) {
    const submit = () => {
      const text = this.#area.value.trim();
      if (!text || this.#busy || !actions.send(text)) return;
      this.#area.value = "";
      this.#fit();
    };
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      submit();
    });
    this.#stop.addEventListener("click", () => actions.stop());
    this.#area.addEventListener("input", () => this.#fit());
    this.#area.addEventListener("keydown", (event) => {
      // Safari ends the composition before this event and marks it with the old key code 229 only.
      if (event.isComposing || event.keyCode === 229) return;
      if (event.key === "Enter" && !event.shiftKey && !event.altKey) {
        event.preventDefault();
        submit();
      } else if (event.key === "ArrowUp" && !this.#area.value) {
        event.preventDefault();
        actions.editLast();
      }
    });
  }

  focus() {
    this.#area.focus();
  }

  get draft() {
    return this.#area.value;
  }

  set draft(text) {
    this.#area.value = text;
    this.#fit();
  }

  /** While an answer arrives the send button is a stop button. */
  setBusy(busy) {
    const focused = document.activeElement;
    this.#busy = busy;
    this.#stop.hidden = !busy;
    this.#send.hidden = busy;
    if (focused === this.#stop && !busy) this.#area.focus();
    this.#fit();
  }

  #fit() {
    this.#send.disabled = !this.#area.value.trim();
    if (CSS.supports("field-sizing", "content")) return;
    this.#area.style.height = "auto";
    this.#area.style.height = `${this.#area.scrollHeight}px`;
  }
}
