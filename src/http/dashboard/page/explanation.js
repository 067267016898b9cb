// What is understood of an incident: every statement with what shows it.

import * as api from "./api.js";
import { announce, at, exact, h, said } from "./dom.js";
import { refresh } from "./store.js";
import { ago, percent, plain, span } from "./words.js";

const WRITERS = { deterministic: "by rules, without a model", openai: "by a model (OpenAI)", anthropic: "by a model (Anthropic)", ollama: "by a local model (Ollama)" };

const heading = (text, id) => h("h3", { id }, text);
const several = (list) => (Array.isArray(list) ? list : []);

function citations(ids, cited, cite) {
  return several(ids).map((id) => (cited.includes(id)
    ? [" ", h("button", { type: "button", class: "cite", "aria-label": `evidence ${plain(id, 20)}`, on: { click: () => cite(id) } }, id)]
    : [" ", h("span", { class: "quiet" }, "[", said(id), "]")]));
}

async function explainAgain(incident) {
  try {
    await api.act(incident.id, "explain");
    announce("The explanation is written anew");
    refresh();
  } catch (problem) {
    announce(problem.text, true);
  }
}

export function explanation(incident, [mayOperate, catalogue], cite, propose) {
  const told = incident.explanation;
  const again = mayOperate ? h("button", { type: "button", class: "button small", "data-key": "explain", on: { click: () => explainAgain(incident) } }, told ? "Explain again" : "Explain") : null;
  if (!told) {
    return incident.status === "resolved" ? null : [heading("Explanation", "explained"), h("p", { class: "quiet" }, "There is none yet. "), h("p", { class: "buttons" }, again)];
  }
  const cited = incident.cited;
  const claims = several(told.claims);
  const causes = several(told.causes);
  const steps = several(told.next_steps);
  const picks = several(told.suggested_actions);
  const model = told.provider !== "deterministic";
  return [
    h("div", { class: "part-head" }, heading("Explanation", "explained"), again),
    told.degraded ? h("p", { class: "caution" }, "Less than it should be: something that was needed could not be had.") : null,
    h("p", { class: "prose summary" }, said(told.summary)),
    claims.length ? h("ul", { class: "claims", "aria-label": "Statements" }, claims.map((claim) =>
      h("li", null, h("span", { class: `claim ${claim.kind === "observed" ? "observed" : "inferred"}` }, claim.kind), " ", said(claim.text), citations(claim.evidence, cited, cite)))) : null,
    causes.length ? [heading("Likely causes", "causes"), h("ol", { class: "plain", "aria-labelledby": "causes" }, causes.map((cause) =>
      h("li", null, h("p", null, h("b", null, said(cause.component)), " ",
        h("meter", { min: 0, max: 1, value: Number(cause.share) || 0, "aria-label": `share ${percent(cause.share)}` }), " ", percent(cause.share)),
      h("p", null, said(cause.text), citations(cause.evidence, cited, cite)))))] : null,
    steps.length ? [heading("Next steps", "steps"), h("ol", { "aria-labelledby": "steps" }, steps.map((step) => h("li", { class: "prose" }, said(typeof step === "string" ? step : step?.text))))] : null,
    picks.length ? [heading("Actions that may help", "picks"), h("ul", { class: "plain", "aria-labelledby": "picks" }, picks.map((pick, place) =>
      h("li", null, h("p", null, h("b", null, said(pick.action)), Object.entries(pick.params ?? {}).map(([name, value]) => [" ", said(name), "=", exact(typeof value === "string" ? value : JSON.stringify(value))])),
        mayOperate && catalogue.includes(pick.action) ? h("button", { type: "button", class: "button small", "data-key": `pick-${place}`, on: { click: () => propose(pick) } }, "Propose it…") : null)))] : null,
    h("p", { class: "quiet" }, "Written ", WRITERS[told.provider] ?? said(told.provider), ", ", at(told.generated_at), `; ${percent(told.confidence)} sure.`,
      model ? " Model text is untrusted: believe what is cited." : null),
  ];
}

export function runbooks(listed, explained) {
  const matches = new Map();
  for (const runbook of [...several(listed), ...several(explained)]) {
    if (runbook && typeof runbook === "object") matches.set(runbook.id ?? runbook.title, { ...matches.get(runbook.id ?? runbook.title), ...runbook });
  }
  if (!matches.size) return null;
  return [heading("Runbooks", "runbooks"), h("ul", { class: "plain", "aria-labelledby": "runbooks" }, [...matches.values()].map((runbook) =>
    h("li", null, h("p", null, h("b", null, said(runbook.title ?? runbook.id))), runbook.why ? h("p", { class: "quiet" }, said(runbook.why)) : null,
      several(runbook.steps).length ? h("ol", null, runbook.steps.map((step) => h("li", { class: "prose" }, said(typeof step === "string" ? step : step?.text)))) : null)))];
}

export function similar(listed) {
  const incidents = several(listed).filter((one) => one && typeof one === "object");
  if (!incidents.length) return null;
  return [heading("Similar incidents before", "similar"), h("ul", { class: "plain", "aria-labelledby": "similar" }, incidents.map((one) => {
    const { id, title, opened_at: began, took_secs: took, score, why, resolution, resolved_at: over } = one;
    return h("li", null,
      h("p", null, id ? h("a", { href: `#/incidents/${encodeURIComponent(id)}` }, said(title ?? id)) : said(title), h("span", { class: "quiet" }, began ? ` ${ago(began)}` : "", score ? `, ${percent(score)} alike` : "")),
      why ? h("p", { class: "quiet" }, said(why)) : null,
      h("p", null, over ? [`Over${typeof took === "number" ? ` after ${span(took * 1000)}` : ""}`, resolution ? [": ", said(resolution)] : "."] : "Not over yet."));
  }))];
}
