// The only place that makes elements. Text becomes text nodes and nothing else: there is no way here to write markup.

import { ago, exactPieces, left, moment, pieces } from "./words.js";

const ATTRIBUTES = new Set([
  "id", "class", "for", "type", "name", "value", "title", "role", "lang", "dir", "placeholder", "autocomplete", "maxlength", "min", "max", "step",
  "rows", "tabindex", "datetime", "alt", "download", "open", "disabled", "required", "selected", "checked", "hidden", "method", "spellcheck", "inputmode", "enterkeyhint",
]);

/** Makes an element. Links lead within this page or to this service. */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "href") {
      if (!/^(#|\/api\/)/.test(value)) throw new Error("a link leads within this service");
      element.setAttribute("href", value);
    } else if (name === "src" && tag === "img") {
      if (!value.startsWith("/api/")) throw new Error("a picture comes from this service");
      element.setAttribute("src", value);
    } else if (ATTRIBUTES.has(name) || /^(aria|data)-[a-z-]+$/.test(name)) {
      element.setAttribute(name, value === true ? "" : String(value));
    } else {
      throw new Error(`no attribute ${name}`);
    }
  }
  put(element, children);
  return element;
}

function put(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

const marked = (parts) =>
  parts.map((part) => (part.text === undefined ? h("span", { class: "odd", title: "a character that would not be seen as it is" }, part.mark) : part.text));

/** What somebody else wrote: isolated in its direction, with nothing hidden in it. */
export const said = (text) => h("bdi", null, marked(pieces(text)));
/** The same over several lines. */
export const block = (text, props) => h("pre", props, marked(pieces(text)));
/** One element of what will run. */
export const exact = (text) => h("code", { class: "exact", dir: "ltr" }, marked(exactPieces(text)));

/** A time: how long ago, and when exactly. */
export const since = (text) => (text ? h("time", { datetime: text, title: moment(text), "data-clock": "ago" }, ago(text)) : null);
/** What is left until then. */
export const until = (text) =>
  text ? h("time", { datetime: text, title: moment(text), class: "countdown", role: "timer", "aria-live": "off", "data-clock": "left" }, left(text)) : null;
/** The time of day. */
export const at = (text) => (text ? h("time", { datetime: text, title: text }, moment(text)) : null);

/** Lets every shown time go on. */
export function tick() {
  for (const time of document.querySelectorAll("time[data-clock]")) {
    const text = time.getAttribute("datetime");
    const now = time.dataset.clock === "left" ? left(text) : ago(text);
    if (time.textContent !== now) time.textContent = now;
    if (time.dataset.clock === "left") time.classList.toggle("short", Date.parse(text) - Date.now() < 120_000);
  }
}

/** Puts `nodes` in the place of what was there, and the focus and open details where they were. */
export function swap(container, ...nodes) {
  const focused = container.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const open = new Map([...container.querySelectorAll("details[data-key]")].map((details) => [details.dataset.key, details.open]));
  container.replaceChildren();
  put(container, nodes);
  for (const details of container.querySelectorAll("details[data-key]")) {
    if (open.has(details.dataset.key)) details.open = open.get(details.dataset.key);
  }
  if (focused) keyed(container, focused)?.focus({ preventScroll: true });
}

/** The element of this key; a key is compared, never made part of a selector. */
export const keyed = (container, key) => [...container.querySelectorAll("[data-key]")].find((element) => element.dataset.key === key);

/** A part of a view that is drawn again only when what it shows has changed. */
export class Part {
  constructor(tag, props, draw) {
    this.element = h(tag, props);
    this.draw = draw;
    this.shown = undefined;
  }

  show(...what) {
    const shown = JSON.stringify(what);
    if (shown === this.shown) return;
    this.shown = shown;
    const drawn = [this.draw(...what)].flat().filter(Boolean);
    this.element.hidden = drawn.length === 0;
    swap(this.element, ...drawn);
  }
}

/** Tells somebody who does not see the page. */
export function announce(text, urgent = false) {
  const region = document.getElementById(urgent ? "urgent" : "polite");
  region.textContent = "";
  // a region that was just emptied is read again even if the words are the same
  setTimeout(() => { region.textContent = text; }, 50);
}
