// On narrow screens the sidebar is a drawer: opened by a button, closed by the veil, Escape, or a choice made in it.

import { byId } from "./dom.js";

export class Drawer {
  #narrow = window.matchMedia("(max-width: 820px)");

  constructor() {
    byId("sidebar-open").addEventListener("click", () => this.slide(true));
    byId("sidebar-close").addEventListener("click", () => this.slide(false));
    byId("backdrop").addEventListener("click", () => this.slide(false));
    byId("sidebar").addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.isOpen()) {
        event.stopPropagation();
        this.slide(false);
      }
    });
    this.#narrow.addEventListener("change", () => this.slide(false));
    this.slide(false);
  }

  isOpen() {
    return document.body.classList.contains("drawer-open");
  }

  /** Open or close it; on wide screens there is none. `first` is the element that then has the focus. */
  slide(open, first = byId("sidebar").querySelector(".new-chat")) {
    const narrow = this.#narrow.matches;
    const shown = narrow && open;
    const was = this.isOpen();
    document.body.classList.toggle("drawer-open", shown);
    byId("sidebar").inert = narrow && !open;
    byId("sidebar-open").setAttribute("aria-expanded", String(shown));
    if (shown) first.focus();
    else if (was) byId("sidebar-open").focus();
  }
}
