// The page's one pop-up menu, placed beside the button that opened it; arrow keys move, Escape gives the focus back.

import { byId, el } from "./dom.js";

/** Open the menu at `anchor` with `items`: { label, run, danger }, where null is a line between groups. */
export function openMenu(anchor, items) {
  const menu = byId("menu");
  const close = () => menu.hidePopover();
  menu.replaceChildren(
    ...items.map((item) => {
      if (item === null) return el("hr", { role: "separator" });
      const run = () => {
        close();
        item.run();
      };
      return el("button", { type: "button", role: "menuitem", tabindex: "-1", class: item.danger ? "danger" : null, onclick: run }, item.label);
    }),
  );
  menu.onkeydown = (event) => moveFocus(event, menu);
  menu.ontoggle = (event) => {
    anchor.setAttribute("aria-expanded", String(event.newState === "open"));
    if (event.newState === "closed" && (menu.contains(document.activeElement) || document.activeElement === document.body)) anchor.focus();
  };
  menu.showPopover();
  place(menu, anchor);
  menu.querySelector("button")?.focus();
}

function place(menu, anchor) {
  const box = anchor.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = menu;
  const below = box.bottom + 4 + height <= window.innerHeight;
  const fromRight = box.left + width > window.innerWidth - 8;
  menu.style.top = `${below ? box.bottom + 4 : Math.max(8, box.top - 4 - height)}px`;
  menu.style.left = `${fromRight ? Math.max(8, box.right - width) : box.left}px`;
}

function moveFocus(event, menu) {
  const items = [...menu.querySelectorAll("button")];
  const at = items.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
  if (event.key === "Tab") menu.hidePopover();
  if (to === undefined) return;
  event.preventDefault();
  items.at(to % items.length)?.focus();
}
