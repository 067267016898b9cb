// The list of incidents: what burns, at a glance.

import { h, said, since } from "./dom.js";
import { Rows } from "./rows.js";
import { loadMore, setFilter, sorted, state, STATS_DAYS } from "./store.js";
import { percent, plural, span } from "./words.js";

const SHAPES = { critical: "▲", error: "◆", warning: "●", info: "○", debug: "·" };

/** A severity, in words and with a shape: colour alone tells nobody enough. */
export const severity = (name) => h("span", { class: `severity ${name}` }, h("span", { "aria-hidden": "true" }, SHAPES[name] ?? "·"), " ", name);
export const status = (name) => h("span", { class: `status ${name}` }, String(name).replaceAll("_", " "));

const asleep = (incident) => Date.parse(incident.snoozed_until ?? 0) > Date.now();

function line(incident) {
  const quiet = [
    said(incident.source),
    incident.occurrences > 1 ? ` · ×${incident.occurrences}` : null,
    incident.alert_count > 1 ? ` · ${plural(incident.alert_count, "alert")}` : null,
    incident.assignee ? [" · ", said(incident.assignee)] : null,
    asleep(incident) ? " · snoozed" : null,
    incident.recurrence > 0 ? ` · came back ${incident.recurrence}×` : null,
  ];
  return [
    h("span", { class: "row-head" }, severity(incident.severity), status(incident.status), h("span", { class: "row-time" }, since(incident.opened_at))),
    h("span", { class: "row-title" }, said(incident.title)),
    h("span", { class: "row-more quiet" }, quiet),
  ];
}

/** How it went in the last days, in one line. */
function went(stats) {
  if (!stats?.incidents) return "";
  const half = ({ median_secs: seconds }) => (seconds === null ? null : span(seconds * 1000));
  const [taken, over] = [half(stats.time_to_acknowledge), half(stats.time_to_resolve)];
  const parts = [
    `${stats.complete ? "" : "the newest "}${plural(stats.incidents, "incident")} in ${STATS_DAYS} days`,
    taken ? `half acknowledged within ${taken}` : null,
    over ? `half resolved within ${over}` : null,
    stats.reopened ? `${percent(stats.reopened_share)} reopened` : null,
    stats.recurring ? `${stats.recurring} came back` : null,
  ];
  return `${parts.filter(Boolean).join(", ")}.`;
}

export class IncidentList {
  constructor() {
    this.rows = new Rows("Incidents", (incident) => ({ href: `#/incidents/${encodeURIComponent(incident.id)}`, tone: `${incident.severity} ${incident.status}` }), line);
    this.said = h("p", { class: "quiet empty" });
    this.count = h("p", { class: "quiet count", role: "status" });
    this.went = h("p", { class: "quiet count", "data-part": "stats" });
    this.more = h("button", { type: "button", class: "button", on: { click: loadMore } }, "Show older ones");
    this.element = h("section", { class: "list", "aria-labelledby": "list-title" },
      h("h1", { id: "list-title", class: "unseen" }, "Incidents"), filters(), this.count, this.went, this.rows.element, this.said, this.more);
  }

  show() {
    const items = sorted();
    this.rows.show(items, state.open?.id);
    this.more.hidden = !state.more;
    const burning = items.filter((incident) => incident.severity === "critical" && incident.status === "open").length;
    const count = items.length ? `${plural(items.length, "incident")}${burning ? `, ${burning} critical and open` : ""}${state.cut ? " (the newest; there are more)" : ""}` : "";
    if (this.count.textContent !== count) this.count.textContent = count;
    const past = went(state.stats);
    if (this.went.textContent !== past) this.went.textContent = past;
    this.went.hidden = past === "";
    const empty = items.length ? "" : state.trouble ? `The incidents cannot be read: ${state.trouble.text}.` : !state.loaded ? "Reading…" : nothing();
    if (this.said.textContent !== empty) this.said.textContent = empty;
    this.said.hidden = empty === "";
  }
}

function nothing() {
  const { status: which, severity: grade, source, q } = state.filter;
  if (state.more) return "None of the newest matches; older ones may.";
  if (grade || source || q) return "No incident matches these filters.";
  return which === "active" ? "No incident is open. All quiet." : "There is no such incident.";
}

function filters() {
  let waiting = null;
  const later = (change) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => setFilter(change), 250);
  };
  const pick = (name, label, options) =>
    h("label", { class: "pick" }, h("span", null, label),
      h("select", { name, on: { change: (event) => setFilter({ [name]: event.target.value }) } },
        options.map(([value, text]) => h("option", { value, selected: state.filter[name] === value }, text))));
  const type = (name, label, placeholder, title) =>
    h("label", { class: "pick" }, h("span", null, label),
      h("input", { name, type: "search", value: state.filter[name], placeholder, title, autocomplete: "off", spellcheck: "false", "data-search": name === "q",
        on: { input: (event) => later({ [name]: event.target.value.trim() }) } }));
  return h("form", { class: "filters", role: "search", "aria-label": "Filter incidents", on: { submit: (event) => event.preventDefault() } },
    pick("status", "Status", [["active", "active"], ["open", "open"], ["acknowledged", "acknowledged"], ["resolved", "resolved"], ["", "all"]]),
    pick("severity", "Severity", [["", "all"], ...["critical", "error", "warning", "info", "debug"].map((name) => [name, name])]),
    type("source", "Source", "exactly"), type("q", "Words", "search  ( / )", "In titles, descriptions and evidence; also assignee:NAME and label:NAME=VALUE"));
}
