// Keeps the end of a growing conversation in view, but only for a reader who is there.

const NEAR = 48;

export class PinnedScroll {
  #area;
  #pinned = true;
  #top = 0;
  #onChange;

  /** `onChange(pinned)` is told when the reader leaves the end or comes back. */
  constructor(area, content, onChange) {
    this.#area = area;
    this.#onChange = onChange;
    area.addEventListener(
      "scroll",
      () => {
        const top = area.scrollTop;
        const near = area.scrollHeight - top - area.clientHeight < NEAR;
        // Growth alone moves the end away without moving the reader: only scrolling up unpins.
        const pinned = near || (this.#pinned && top >= this.#top);
        this.#top = top;
        if (pinned === this.#pinned) return;
        this.#pinned = pinned;
        onChange(pinned);
      },
      { passive: true },
    );
    const watcher = new ResizeObserver(() => this.follow());
    watcher.observe(content);
    watcher.observe(area);
  }

  /** Go to the end if the reader was there. */
  follow() {
    if (!this.#pinned) return;
    this.#area.scrollTop = this.#area.scrollHeight;
    this.#top = this.#area.scrollTop;
  }

  /** Go to the end and stay. */
  pin() {
    this.#pinned = true;
    this.follow();
    this.#onChange(true);
  }
}
