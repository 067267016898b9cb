// One proposed action: what exactly would run, who wants it, and the decision.

import { at, block, exact, h, Part, said, since, until } from "./dom.js";
import { approve, closeRun, deny, mayApprove, revoke, run, runAgain } from "./decide.js";
import { digestOf } from "./sha256.js";
import { isAdmin, mayDecide, mayOperate, state, stopped } from "./store.js";
import { commandLine, exactPieces, plural, spaced } from "./words.js";

const heading = (text, id) => h("h3", { id }, text);
const PROPOSERS = { rule: "rule", user: "person", ai: "model" };

export const risk = (name) => h("span", { class: `risk ${name}` }, name);
export const state_ = (name) => h("span", { class: `status ${name}` }, spaced(name));
export const proposer = (by) => [PROPOSERS[by?.type] ?? by?.type ?? "", " ", said(by?.id)];

const command = (approval) => h("pre", { class: "command", dir: "ltr" }, commandLine(approval.plan?.argv));

const ORDER = { pending: 0, approved: 1, unknown: 2, executing: 3 };

/** What waits for people first, and of that what runs out first. */
export function queue(approvals) {
  const due = (approval) => (approval.status === "pending" ? approval.approve_by : approval.status === "approved" ? approval.execute_by : null);
  return approvals.sort((a, b) => {
    const order = (ORDER[a.status] ?? 4) - (ORDER[b.status] ?? 4);
    if (order) return order;
    if (due(a)) return due(a) < due(b) ? -1 : 1;
    return a.created_at < b.created_at ? 1 : -1;
  });
}

/** What is left of time, or how it ended. */
export function clock(approval) {
  if (approval.status === "pending") return ["approve within ", until(approval.approve_by)];
  if (approval.status === "approved") return ["execute within ", until(approval.execute_by)];
  return since(approval.created_at);
}

/** A proposal in a few lines. */
export function brief(approval) {
  return h("a", { class: `row ${approval.status}`, href: `#/approvals/${encodeURIComponent(approval.id)}` },
    h("span", { class: "row-head" }, risk(approval.risk), state_(approval.status), h("span", { class: "row-time" }, clock(approval))),
    h("span", { class: "row-title" }, said(approval.title)),
    h("code", { class: "row-more", dir: "ltr" }, commandLine(approval.plan?.argv)));
}

function head(approval) {
  const quorum = approval.quorum ?? { required: 1, approved_by: [] };
  const by = quorum.approved_by ?? [];
  return [
    h("p", { class: "row-head" }, risk(approval.risk), state_(approval.status)),
    h("h2", { id: "approval-title", tabindex: "-1", "data-key": "approval-title" }, said(approval.title)),
    h("dl", { class: "facts" }, [
      ["For", h("a", { href: `#/incidents/${encodeURIComponent(approval.incident_id)}` }, state.incidents.get(approval.incident_id) ? said(state.incidents.get(approval.incident_id).title) : approval.incident_id)],
      ["Proposed", [at(approval.created_at), " by ", proposer(approval.proposed_by)]],
      ["Needs", [plural(quorum.required, "approver"), by.length ? ["; agreed: ", by.map((name, place) => [place ? ", " : "", said(name)])] : "; nobody agreed yet"]],
      approval.status === "pending" ? ["Approve within", [until(approval.approve_by), " (", at(approval.approve_by), ")"]] : null,
      approval.status === "approved" ? ["Execute within", [until(approval.execute_by), " (", at(approval.execute_by), ")"]] : null,
    ].filter(Boolean).map(([name, value]) => [h("dt", null, name), h("dd", null, value)])),
    approval.reasoning ? h("div", { class: "reasoning" }, approval.proposed_by?.type === "ai" ? h("p", { class: "caution" }, "Model text, untrusted:") : null, h("p", { class: "prose" }, said(approval.reasoning))) : null,
    h("p", { class: "quiet" }, h("code", null, approval.id)),
  ];
}

/** Whether what is shown here is what approval binds to: computed here, from what is shown. */
export function digest(approval) {
  const [name, hex = ""] = String(approval.plan_digest ?? "").split(":");
  const same = approval.plan && digestOf(approval.plan) === approval.plan_digest;
  return {
    same,
    shown: [
      h("p", { class: "digest", dir: "ltr" }, h("code", null, `${name}:`, h("strong", null, hex.slice(0, 12)), (hex.slice(12).match(/.{1,8}/g) ?? []).map((part) => h("span", null, part)))),
      same ? h("p", { class: "good" }, "✓ This page computed the same digest from the plan it shows.")
        : h("p", { class: "trouble", role: "alert" }, "✗ The digest is not that of the plan shown here. Do not approve this."),
    ],
  };
}

function plan(approval) {
  const { argv = [], targets = [], env = [], executor, cwd, uid, timeout_secs, idle_timeout_secs, output_bytes, ...rest } = approval.plan ?? {};
  const odd = argv.some((element) => exactPieces(element).some((part) => part.mark));
  const facts = [
    ["Runs as", executor === "process" ? `a program on this machine, without a shell${uid === null || uid === undefined ? "" : `, as user ${uid}`}` : said(executor)],
    ["Acts on", targets.length ? targets.map((target, place) => [place ? ", " : "", exact(target)]) : "no named target"],
    ["Folder", exact(cwd ?? "")],
    ["Variables", env.length ? env.map((name, place) => [place ? ", " : "", exact(name)]) : "none but the fixed ones"],
    ["Ended after", `${timeout_secs} s${idle_timeout_secs ? `, or ${idle_timeout_secs} s of silence` : ""}`],
    output_bytes ? ["Output kept", `${Math.round(output_bytes / 1024)} KiB of each`] : null,
  ].filter(Boolean);
  return [
    heading("What exactly will run", "plan"),
    command(approval),
    h("ol", { class: "argv", start: null, "aria-label": "Each element as the program gets it" }, argv.map((element) => h("li", null, element === "" ? h("span", { class: "quiet" }, "(empty)") : exact(element)))),
    odd ? h("p", { class: "caution" }, "Characters beyond plain ASCII are marked: look twice.") : null,
    h("dl", { class: "facts" }, facts.map(([name, value]) => [h("dt", null, name), h("dd", null, value)])),
    approval.preview?.text ? [heading("Preview", "preview"), block(approval.preview.text)] : null,
    heading("Digest", "digest"), digest(approval).shown,
    h("details", { "data-key": "plan-json" }, h("summary", null, "The whole plan"), block(JSON.stringify(approval.plan, null, 2)),
      Object.keys(rest).length ? h("p", { class: "quiet" }, "Parameters: ", exact(JSON.stringify(approval.params ?? {}))) : null),
  ];
}

function decision(approval, { token, halted, operator }) {
  const button = (key, text, tone, click, props) => h("button", { type: "button", class: `button ${tone}`, "data-key": key, on: { click }, ...props }, text);
  if (!operator) return h("p", { class: "quiet" }, "You may look. To decide, your account needs the role operator, or a group that policy names.");
  if (approval.status === "pending") {
    const hindrance = mayApprove(approval);
    const same = digest(approval).same;
    return [
      halted ? h("p", { class: "caution" }, "The kill switch is on: what is approved now does not run until it is released.") : null,
      hindrance ? h("p", { class: "caution" }, hindrance) : null,
      h("p", { class: "buttons", role: "group", "aria-label": "Decide" },
        hindrance || !same ? null : button("approve", "Approve…", "main", () => approve(approval)),
        button("deny", "Deny…", "danger", () => deny(approval)),
        (approval.proposed_by?.type === "user" && approval.proposed_by.id === state.me?.username) || isAdmin() ? button("withdraw", "Withdraw…", "", () => revoke(approval, "withdraw")) : null),
    ];
  }
  if (approval.status === "approved") {
    const own = (approval.quorum?.approved_by ?? []).includes(state.me?.username);
    return [
      halted ? h("p", { class: "caution" }, "The kill switch is on: nothing runs until it is released.") : null,
      token ? h("p", { class: "good" }, "Approved. The token is in this page's memory, and only there.") : own ? h("p", { class: "quiet" }, "You approved it, but this page does not hold the token. Executing asks for a new one; the old one is void then.")
        : h("p", { class: "quiet" }, "Who approved it can execute it."),
      h("p", { class: "buttons", role: "group", "aria-label": "Execute" },
        token ? button("execute", "Execute now", "main", () => run(approval)) : own ? button("execute", "Execute with a new token", "main", () => runAgain(approval)) : null,
        button("revoke", "Take the approval back…", "danger", () => revoke(approval, "revoke"))),
    ];
  }
  return null;
}

function took(run) {
  if (!run.finished_at) return null;
  const seconds = (Date.parse(run.finished_at) - Date.parse(run.started_at)) / 1000;
  return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
}

function execution(approval, run, problem, operator) {
  if (!approval.execution_id) return null;
  if (!run) return [heading("Execution", "run"), h("p", { class: "quiet" }, problem ? `It cannot be read: ${problem}.` : "Reading…")];
  const output = (name, text) => [h("h4", null, name), text ? block(text, { class: "output", tabindex: "0", role: "region", "aria-label": name }) : h("p", { class: "quiet" }, "nothing")];
  const facts = [
    ["Started", at(run.started_at)], ["Took", took(run)], ["Exit status", run.exit_code === null || run.exit_code === undefined ? null : String(run.exit_code)],
    ["Because", run.reason ? said(spaced(run.reason)) : null], ["Held in by", run.containment ? said(run.containment) : null],
    ["Helped", run.verified === true ? "yes, signals show it" : run.verified === false ? "no, signals do not show it" : null],
  ].filter(([, value]) => value !== null);
  return [
    heading("Execution", "run"),
    h("p", { class: "row-head", role: "status" }, state_(run.status)),
    h("dl", { class: "facts" }, facts.map(([name, value]) => [h("dt", null, name), h("dd", null, value)])),
    run.status === "unknown" ? h("p", { class: "caution" }, "It was cut off, and nobody knows how it ended. It is not run again. Look at the target yourself, then say how it ended.") : null,
    run.status === "unknown" && operator ? h("p", { class: "buttons" }, h("button", { type: "button", class: "button main", "data-key": "close-run", on: { click: () => closeRun(approval, run) } }, "Say how it ended…")) : null,
    run.truncated ? h("p", { class: "caution" }, "There was more output: only its head and tail were kept.") : null,
    run.status === "executing" ? null : [output("Output", run.stdout), output("Errors", run.stderr)],
    h("p", { class: "quiet" }, h("code", null, run.id)),
  ];
}

export class ApprovalView {
  constructor() {
    this.trouble = new Part("p", { class: "trouble", role: "alert" }, (text) => text);
    this.parts = {
      head: new Part("div", null, head),
      decision: new Part("div", { class: "decision" }, decision),
      execution: new Part("section", { class: "part" }, execution),
      plan: new Part("section", { class: "part" }, plan),
    };
    this.body = h("div", null, this.parts.head.element, this.parts.execution.element, this.parts.plan.element, this.parts.decision.element);
    this.element = h("article", { class: "detail", "aria-label": "Proposed action" }, h("p", { class: "back" }, h("a", { href: "#/approvals", class: "button" }, "← Actions")), this.trouble.element, this.body);
  }

  show(shown) {
    const { approval, problem, execution: run, runProblem } = shown;
    this.trouble.show(problem && !approval ? (problem.status === 404 ? "There is no such approval." : problem.text) : approval ? "" : "Reading…");
    this.body.hidden = !approval;
    if (!approval) return;
    this.parts.head.show(approval, state.incidents.get(approval.incident_id)?.title);
    this.parts.plan.show(approval);
    this.parts.decision.show(approval, { token: state.tokens.has(approval.id), halted: stopped(), operator: mayDecide() });
    this.parts.execution.show(approval, run, runProblem?.text, mayOperate());
  }
}
