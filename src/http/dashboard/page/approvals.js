// The queue of proposed actions, and the one that is open.

import * as api from "./api.js";
import { clock, queue, risk, state_ } from "./approval.js";
import { h, said } from "./dom.js";
import { Rows } from "./rows.js";
import { changed, state, takeApproval } from "./store.js";
import { commandLine, plural } from "./words.js";

const line = (approval) => [
  h("span", { class: "row-head" }, risk(approval.risk), state_(approval.status), h("span", { class: "row-time" }, clock(approval))),
  h("span", { class: "row-title" }, said(approval.title)),
  h("code", { class: "row-more", dir: "ltr" }, commandLine(approval.plan?.argv)),
];

/** The approval that is open, with its run. */
export const opened = { id: null, approval: null, problem: null, execution: null, runProblem: null };
let polling = null;

async function readRun() {
  clearTimeout(polling);
  const { id } = opened;
  const run = opened.approval?.execution_id;
  if (!run) return;
  try {
    const execution = await api.execution(run);
    if (opened.id !== id) return;
    Object.assign(opened, { execution, runProblem: null });
  } catch (problem) {
    if (opened.id !== id) return;
    opened.runProblem = problem;
  }
  changed();
  if (opened.execution?.status === "executing" || (opened.runProblem && !opened.execution)) polling = setTimeout(readRun, 1000);
  else if (opened.approval?.status === "executing") {
    const now = await api.approval(id).catch(() => null);
    if (now) takeApproval(now);
  }
}

export async function openApproval(id) {
  if (opened.id === id) return;
  clearTimeout(polling);
  Object.assign(opened, { id, approval: state.approvals.get(id) ?? null, problem: null, execution: null, runProblem: null });
  if (!id) return;
  try {
    const approval = await api.approval(id);
    if (opened.id === id) takeApproval(approval);
  } catch (problem) {
    if (opened.id === id) opened.problem = problem;
  }
  changed();
}

/** Brings what is open up to what the store knows by now. */
export function follow() {
  if (!opened.id) return;
  const before = opened.approval;
  opened.approval = state.approvals.get(opened.id) ?? before;
  const now = opened.approval;
  if (now?.execution_id && (!opened.execution || before?.status !== now.status || opened.execution.id !== now.execution_id)) {
    if (opened.asked !== `${now.execution_id} ${now.status}`) {
      opened.asked = `${now.execution_id} ${now.status}`;
      readRun();
    }
  }
}

export class ApprovalList {
  constructor() {
    this.rows = new Rows("Proposed actions", (approval) => ({ href: `#/approvals/${encodeURIComponent(approval.id)}`, tone: approval.status }), line);
    this.said = h("p", { class: "quiet empty" });
    this.count = h("p", { class: "quiet count", role: "status" });
    this.element = h("section", { class: "list", "aria-labelledby": "queue-title" }, h("h1", { id: "queue-title", class: "unseen" }, "Actions"), this.count, this.rows.element, this.said);
  }

  show() {
    const items = queue([...state.approvals.values()]);
    this.rows.show(items, opened.id);
    const waiting = items.filter((approval) => approval.status === "pending").length;
    const trouble = state.approvalsTrouble;
    const count = waiting ? `${plural(waiting, "action")} ${waiting === 1 ? "waits" : "wait"} for people` : "";
    if (this.count.textContent !== count) this.count.textContent = count;
    const text = trouble ? (trouble.status === 404 ? "This service does not take actions." : `The actions cannot be read: ${trouble.text}.`) : items.length ? "" : "No action waits for anybody.";
    if (this.said.textContent !== text) this.said.textContent = text;
    this.said.hidden = text === "";
  }
}

