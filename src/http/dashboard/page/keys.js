// The keyboard. Every key here only saves a way; nothing is out of reach of Tab and Enter.

import { asking, show } from "./ask.js";
import { acknowledgeNow } from "./deeds.js";
import { h } from "./dom.js";
import { mayOperate, state } from "./store.js";

const KEYS = [
  ["j  k", "next, previous in the list"], ["Enter", "open it"], ["a", "acknowledge the incident that is chosen or open"], ["Esc", "back to the list"], ["/", "search"],
  ["g i", "incidents"], ["g a", "actions that wait"], ["g h", "health"], ["?", "this help"],
];
const OFF = "opspilot-keys-off";

/** Whether single keys do anything; who dictates or leans on the keyboard can turn them off. */
const on = () => {
  try {
    return localStorage.getItem(OFF) === null;
  } catch {
    return true;
  }
};

function set(wanted) {
  try {
    if (wanted) localStorage.removeItem(OFF);
    else localStorage.setItem(OFF, "1");
  } catch {
    // a browser that keeps nothing for us: they stay as they are
  }
}

export function help() {
  const box = h("input", { type: "checkbox", id: "keys-on", checked: on(), on: { change: (event) => set(event.target.checked) } });
  show("Keyboard", h("dl", { class: "keys" }, KEYS.map(([key, what]) => [h("dt", null, key.split(/\s+/).map((one) => [h("kbd", null, one), " "])), h("dd", null, what)])),
    h("p", null, box, h("label", { for: "keys-on" }, " Single keys do something")));
}

const rows = () => [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent !== null);

function step(by) {
  const all = rows();
  if (!all.length) return;
  const here = all.indexOf(document.activeElement);
  const current = all.findIndex((row) => row.getAttribute("aria-current") === "true");
  const from = here >= 0 ? here : current;
  const next = from < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, from + by));
  all[next].focus();
  all[next].scrollIntoView({ block: "nearest" });
}

function chosen() {
  const row = document.activeElement?.closest?.("[data-row]")?.dataset.row;
  const id = state.incidents.has(row) ? row : state.open?.id;
  return state.incidents.get(id) ?? (state.open?.id === id ? state.open?.detail : null);
}

let leader = 0;

export function listen() {
  document.addEventListener("keydown", (event) => {
    if (!state.me || asking() || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const typing = event.target.closest?.("input, textarea, select");
    if (event.key === "Escape") {
      if (typing) typing.blur();
      else if (/^#\/\w+\/./.test(location.hash)) location.hash = location.hash.replace(/^(#\/\w+)\/.*$/, "$1");
      return;
    }
    if (typing || !on()) return;
    const go = Date.now() - leader < 1500 ? { i: "#/incidents", a: "#/approvals", h: "#/health" }[event.key] : null;
    leader = 0;
    if (go) location.hash = go;
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "g") leader = Date.now();
    else if (event.key === "?") help();
    else if (event.key === "/") document.querySelector("[data-search]")?.focus();
    else if (event.key === "a") {
      const incident = chosen();
      if (!incident || !mayOperate() || incident.status !== "open") return;
      acknowledgeNow(incident);
    } else return;
    event.preventDefault();
  });
}
