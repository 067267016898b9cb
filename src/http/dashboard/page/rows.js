// A list whose rows stay the same elements while what they show changes: focus and scrolling survive a storm.

import { h, swap } from "./dom.js";

export class Rows {
  /** `draw(item)` gives what stands in the row's link; `of(item)` its `{href, label, tone}`. */
  constructor(label, of, draw) {
    this.element = h("ul", { class: "rows", "aria-label": label });
    this.of = of;
    this.draw = draw;
    this.rows = new Map();
  }

  show(items, current) {
    const gone = new Set(this.rows.keys());
    const focused = document.activeElement;
    let place = this.element.firstElementChild;
    for (const item of items) {
      gone.delete(item.id);
      const row = this.rows.get(item.id) ?? this.row(item);
      const shown = JSON.stringify(item);
      if (row.shown !== shown) {
        row.shown = shown;
        const { tone } = this.of(item);
        row.link.className = `row ${tone}`;
        swap(row.link, this.draw(item));
      }
      if (item.id === current) row.link.setAttribute("aria-current", "true");
      else row.link.removeAttribute("aria-current");
      if (row.element === place) place = place.nextElementSibling;
      else this.element.insertBefore(row.element, place);
    }
    for (const id of gone) {
      this.rows.get(id).element.remove();
      this.rows.delete(id);
    }
    // an element that was moved has lost the focus
    if (focused !== document.activeElement && this.element.contains(focused)) focused.focus({ preventScroll: true });
  }

  row(item) {
    const link = h("a", { href: this.of(item).href, "data-key": item.id, "data-row": item.id });
    const row = { link, element: h("li", null, link), shown: null };
    this.rows.set(item.id, row);
    return row;
  }
}
