// One incident: what happened, what shows it, who did what, and what can be done.

import * as api from "./api.js";
import { at, block, h, keyed, Part, said, since } from "./dom.js";
import { explanation, runbooks, similar } from "./explanation.js";
import { severity, status } from "./incidents.js";
import { propose } from "./propose.js";
import { deeds, split } from "./deeds.js";
import { brief, queue } from "./approval.js";
import { loadCatalogue, mayOperate, refresh, state } from "./store.js";
import { number, plural, spaced } from "./words.js";

const heading = (text, id) => h("h3", { id }, text);

const other = (id) => h("a", { href: `#/incidents/${encodeURIComponent(id)}` }, h("code", null, id));

function head(incident) {
  const facts = [
    ["Opened", [at(incident.opened_at), " (", since(incident.opened_at), ")"]],
    ["Last seen", [at(incident.last_seen_at), " (", since(incident.last_seen_at), ")"]],
    ["Seen", plural(incident.occurrences, "time")],
    ["Source", said(incident.source)],
    ["Found by", [said(incident.detected_by), incident.rule ? [", rule ", said(incident.rule)] : null]],
    ["Acknowledged", incident.acknowledged_at ? [at(incident.acknowledged_at), " by ", said(incident.acknowledged_by)] : null],
    ["Assigned to", incident.assignee ? said(incident.assignee) : null],
    ["Snoozed until", Date.parse(incident.snoozed_until ?? 0) > Date.now() ? at(incident.snoozed_until) : null],
    ["Came back", incident.recurrence_of ? [`${incident.recurrence}×, the last time after `, other(incident.recurrence_of)] : null],
    ["Merged into", incident.merged_into ? other(incident.merged_into) : null],
    ["Resolved", incident.resolved_at ? [at(incident.resolved_at), incident.resolution ? [": ", said(incident.resolution)] : null] : null],
  ].filter(([, value]) => value !== null);
  const labels = Object.entries(incident.labels ?? {});
  return [
    h("p", { class: "row-head" }, severity(incident.severity), status(incident.status)),
    h("h2", { id: "incident-title", tabindex: "-1", "data-key": "incident-title" }, said(incident.title)),
    incident.description && incident.description !== incident.title ? h("p", { class: "prose" }, said(incident.description)) : null,
    h("dl", { class: "facts" }, facts.map(([name, value]) => [h("dt", null, name), h("dd", null, value)])),
    labels.length ? h("ul", { class: "labels", "aria-label": "Labels" }, labels.map(([name, value]) => h("li", null, said(name), "=", said(value)))) : null,
    h("p", { class: "quiet" }, h("code", null, incident.id), " · ",
      h("a", { href: api.postmortem(incident.id), download: `postmortem-${incident.id}.md`, "data-key": "postmortem" }, "Post-mortem")),
  ];
}

function doing(incident) {
  if (!mayOperate()) return h("p", { class: "quiet" }, "You may look. To act on incidents, your account needs the role operator.");
  return h("p", { class: "buttons", role: "group", "aria-label": "What to do with it" }, deeds(incident).map(({ text, tone, key, run }) =>
    h("button", { type: "button", class: `button ${tone ?? ""}`, "data-key": `deed-${key}`, on: { click: run } }, text)));
}

/** A text with the quoted words of a claim pointed out. */
function quoting(text, quotes) {
  const quote = quotes.find((words) => words && text.includes(words));
  if (!quote) return block(text);
  const from = text.indexOf(quote);
  const pre = block("");
  for (const [part, tag] of [[text.slice(0, from), "span"], [quote, "mark"], [text.slice(from + quote.length), "span"]]) pre.append(h(tag, null, said(part)));
  return pre;
}

/** What was expected of a metric before it was seen. */
function expected({ expected_low: low, expected_high: high }) {
  return low === undefined || high === undefined ? null : ` (expected ${number(low)} to ${number(high)})`;
}

const MEASURES = {
  value: "", lines: " lines a minute", all_lines: " lines a minute", errors: " % of the lines tell of an error",
  alert: " times", incident: " s", looked: " things changed",
};

/** What many observations come to when they are looked at together. */
function change({ name, measure, value, usual, spread, count }) {
  const before = usual === undefined ? null : `, usually ${number(usual)}${spread ? ` ± ${number(spread)}` : ""}`;
  return h("p", null, name ? [said(name), ": "] : null, h("b", null, number(value)), MEASURES[measure] ?? "", before,
    count > 1 ? ` (from ${number(count)} observations)` : null);
}

function evidence(incident) {
  if (!incident.evidence?.length) return null;
  const claims = incident.explanation?.claims ?? [];
  const causes = incident.explanation?.causes ?? [];
  const item = (piece) => {
    const quotes = claims.filter((claim) => claim.evidence?.includes(piece.id)).map((claim) => claim.quote);
    const cited = quotes.length > 0 || causes.some((cause) => cause.evidence?.includes(piece.id));
    return h("li", { "data-key": `evidence-${piece.id}`, tabindex: "-1", class: cited ? "piece cited" : "piece" },
      h("p", { class: "quiet" }, h("b", null, piece.id), " · ", at(piece.at), piece.source ? [" · ", said(piece.source)] : null, cited ? " · cited above" : null),
      piece.kind === "change" ? change(piece) : piece.kind === "metric" ? h("p", null, said(piece.name), " = ", h("b", null, number(piece.value)), expected(piece)) : quoting(piece.text ?? "", quotes));
  };
  const rest = (incident.evidence_count ?? 0) - incident.evidence.length;
  const beyond = incident.evidence_beyond ?? 0;
  const measured = incident.evidence.some((piece) => piece.kind === "metric");
  return [
    heading("Evidence", "evidence"),
    measured ? h("img", { class: "chart", src: api.chart(incident.id), alt: "What was measured, over time, with what was expected" }) : null,
    h("ol", { class: "evidence", "aria-labelledby": "evidence" }, incident.evidence.map(item)),
    rest > 0 || beyond > 0 ? h("p", { class: "quiet" }, [rest > 0 ? `${rest} more kept` : null, beyond > 0 ? `${beyond} seen and not kept` : null].filter(Boolean).join(", "), ".") : null,
  ];
}

/** An alert that could be an incident of its own. */
function takeOut(incident, alert) {
  const alone = new Set(incident.alerts.map((one) => one.fingerprint)).size < 2 && (incident.alert_count ?? 0) <= incident.alerts.length;
  if (alone || !mayOperate() || incident.status === "resolved") return null;
  return h("p", null, h("button", { type: "button", class: "button small", "data-key": `split-${alert.id}`, on: { click: () => split(incident, alert) } }, "Take out"));
}

function alerts(incident) {
  if (!incident.alerts?.length) return null;
  const rest = (incident.alert_count ?? 0) - incident.alerts.length;
  return [
    heading("Alerts", "alerts"),
    h("ul", { class: "plain", "aria-labelledby": "alerts" }, incident.alerts.map((alert) =>
      h("li", null, h("p", { class: "row-head" }, severity(alert.severity), status(alert.status), h("span", { class: "quiet" }, `×${alert.occurrences}`)),
        h("p", null, said(alert.title)),
        h("p", { class: "quiet" }, said(alert.name ?? ""), alert.suppressed_by ? [" · held back by ", said(alert.suppressed_by)] : null, " · ", h("code", null, alert.id)), takeOut(incident, alert)))),
    rest > 0 ? h("p", { class: "quiet" }, `${rest} more.`) : null,
  ];
}

function timeline(lines) {
  if (!lines?.length) return null;
  return [
    heading("Timeline", "timeline"),
    h("ol", { class: "timeline", "aria-labelledby": "timeline" }, lines.map((line) =>
      h("li", null, h("p", { class: "quiet" }, at(line.at), " · ", h("b", null, spaced(line.kind)), line.actor?.id ? [" · ", said(line.actor.id)] : null),
        line.text ? h("p", { class: "prose" }, said(line.text)) : null))),
  ];
}

function approvals(list) {
  if (!list.length) return null;
  return [heading("Actions", "actions"), h("ul", { class: "plain", "aria-labelledby": "actions" }, list.map((approval) => h("li", null, brief(approval))))];
}

function why(open) {
  const details = h("details", { "data-key": "why" }, h("summary", null, "Why this incident: every decision"));
  if (open.why) details.append(h("ol", { class: "plain" }, open.why.map((sentence) => h("li", { class: "quiet" }, said(sentence)))));
  details.addEventListener("toggle", async () => {
    if (!details.open || state.open.why) return;
    const answer = await api.explainWhy(open.id).catch((problem) => ({ summary: [problem.text] }));
    if (state.open?.id === open.id) {
      state.open.why = answer.summary;
      refresh();
    }
  });
  return details;
}

export class IncidentView {
  constructor() {
    this.trouble = new Part("p", { class: "trouble", role: "alert" }, (text) => text);
    this.parts = {
      head: new Part("div", null, head),
      doing: new Part("div", null, (rights, incident) => doing(incident)),
      approvals: new Part("section", { class: "part" }, approvals),
      explanation: new Part("section", { class: "part explanation" }, (incident, rights) => explanation(incident, rights, this.cite.bind(this), (pick) => propose(incident, pick))),
      evidence: new Part("section", { class: "part" }, evidence),
      alerts: new Part("section", { class: "part" }, alerts),
      runbooks: new Part("section", { class: "part" }, runbooks),
      similar: new Part("section", { class: "part" }, similar),
      timeline: new Part("section", { class: "part" }, timeline),
      why: new Part("section", { class: "part" }, (open) => why(open)),
    };
    this.body = h("div", null, Object.values(this.parts).map((part) => part.element));
    this.element = h("article", { class: "detail", "aria-label": "Incident" }, h("p", { class: "back" }, h("a", { href: "#/incidents", class: "button" }, "← Incidents")), this.trouble.element, this.body);
  }

  /** Leads to the piece of evidence that a claim rests on. */
  cite(id) {
    const piece = keyed(this.element, `evidence-${id}`);
    piece?.scrollIntoView({ block: "center" });
    piece?.focus();
  }

  show() {
    const open = state.open;
    if (!open) return;
    if (state.catalogue === null && mayOperate()) {
      state.catalogue = [];
      loadCatalogue();
    }
    const known = state.incidents.get(open.id);
    const incident = open.detail ?? known;
    this.trouble.show(open.problem ? (open.problem.status === 404 ? "There is no such incident." : `This may be old: ${open.problem.text}.`) : incident ? "" : "Reading…");
    this.body.hidden = !incident;
    if (!incident) return;
    const { head, doing, approvals, explanation, evidence, alerts, runbooks, similar, timeline, why } = this.parts;
    // what the feed brings is newer than what was read
    const row = { ...incident, ...known };
    const { alerts: _a, evidence: _e, explanation: _x, similar: _s, runbooks: _r, approvals: listed, ...facts } = row;
    head.show(facts);
    doing.show([mayOperate(), (state.catalogue?.length ?? 0), state.incidents.size], facts);
    const own = [...state.approvals.values()].filter((approval) => approval.incident_id === open.id);
    const others = (open.detail?.approvals ?? []).filter((approval) => typeof approval === "object" && !own.some((one) => one.id === approval.id));
    approvals.show(queue([...own, ...others]));
    explanation.show({ id: incident.id, status: facts.status, explanation: incident.explanation ?? null, cited: (incident.evidence ?? []).map((piece) => piece.id) }, [mayOperate(), (state.catalogue ?? []).map((action) => action.id)]);
    evidence.show({ id: incident.id, evidence: incident.evidence, evidence_count: incident.evidence_count, evidence_beyond: incident.evidence_beyond, explanation: incident.explanation });
    alerts.show({ id: incident.id, status: facts.status, alerts: incident.alerts, alert_count: incident.alert_count });
    runbooks.show(incident.runbooks, incident.explanation?.runbooks);
    similar.show(incident.similar);
    timeline.show(open.timeline);
    why.show({ id: open.id, why: open.why });
  }
}
