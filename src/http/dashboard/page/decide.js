// Decisions on a proposed action. What is sent is the digest of what was shown when the dialog opened.

import * as api from "./api.js";
import { ask, show } from "./ask.js";
import { announce, h, said } from "./dom.js";
import { changed, loadApprovals, state, takeApproval } from "./store.js";
import { commandLine, mayHaveStarted } from "./words.js";

const reload = async (id) => {
  takeApproval(await api.approval(id));
  loadApprovals();
};

const about = (approval) => [
  h("p", { class: "prose" }, said(approval.title)),
  h("pre", { class: "command", dir: "ltr" }, commandLine(approval.plan?.argv)),
  h("p", { class: "digest", dir: "ltr" }, "digest ", h("code", null, h("strong", null, approval.plan_digest.replace(/^sha256:/, "").slice(0, 12)), "…")),
];

const REASON = { name: "reason", label: "Reason", type: "textarea", most: 2000, required: true, hint: "It goes on record." };

/** Why this person cannot approve it, or null. The service decides; this only spares a try. */
export function mayApprove(approval) {
  const by = approval.proposed_by;
  if (by?.type === "user" && by.id === state.me?.username) return "You proposed this: somebody else has to approve it.";
  if ((approval.quorum?.approved_by ?? []).includes(state.me?.username)) return "You have approved this. Somebody else has to agree as well.";
  return null;
}

const lacks = ({ quorum }) => (quorum?.required ?? 1) - (quorum?.approved_by?.length ?? 0);

async function start(approval, token) {
  const run = await api.execute(approval.id, token);
  state.tokens.delete(approval.id);
  announce("It runs");
  takeApproval({ ...approval, status: "executing", execution_id: run.execution_id });
  reload(approval.id).catch(() => {});
}

export const approve = (approval, password = approval.risk === "destructive") => ask({
  title: `Approve: ${approval.risk}`,
  intro: about(approval),
  fields: [REASON, ...(password ? [{ name: "password", label: "Your password", type: "password", autocomplete: "current-password", required: true, hint: "This cannot be undone, so prove that it is you." }] : [])],
  // where others have to agree as well, nothing can be executed yet
  buttons: lacks(approval) > 1 ? [{ name: "only", text: "Approve" }] : [{ name: "run", text: "Approve and execute" }, { name: "only", text: "Approve only", tone: "" }],
  async run({ reason, password }, button) {
    let answer;
    try {
      answer = await api.decide(approval.id, "approve", { plan_digest: approval.plan_digest, reason, ...(password ? { password } : {}) });
    } catch (problem) {
      if (problem.code === "step_up_required" && !password) setTimeout(() => approve(approval, true));
      else { reload(approval.id).catch(() => {}); throw problem; }
      return true;
    }
    if (answer.status !== "approved") {
      announce("Your approval counts; somebody else has to agree as well");
      await reload(approval.id).catch(() => {});
      return true;
    }
    state.tokens.set(approval.id, answer.token);
    const now = { ...approval, status: "approved", execute_by: answer.expires_at, quorum: { ...approval.quorum, approved_by: [...(approval.quorum?.approved_by ?? []), state.me.username] } };
    takeApproval(now);
    announce("Approved");
    if (button !== "run") {
      reload(approval.id).catch(() => {});
      return true;
    }
    try {
      await start(now, answer.token);
    } catch (problem) {
      // it is approved all the same; the dialog must not ask for that again
      notStarted(now, problem);
    }
    return true;
  },
});

function refused(problem) {
  announce(problem.text, true);
  setTimeout(() => ask({ title: "It was not started", intro: [h("p", { class: "trouble" }, problem.text)], buttons: [{ name: "go", text: "Close" }], run: () => true }));
}

const LOOKS = 5;
const LOOK_AGAIN = 2_000;

/** The approval as the service has it now; null if it cannot be read for a while. */
async function lookedUp(id) {
  for (let look = 1; ; look += 1) {
    try {
      return await api.approval(id);
    } catch {
      if (look === LOOKS) return null;
    }
    await new Promise((resolve) => { setTimeout(resolve, LOOK_AGAIN); });
  }
}

/** The answer to a start was lost: what became of it is looked up, and nobody is told that nothing happened. */
function unsure(approval, problem) {
  const text = problem.text ?? String(problem);
  announce(`${text}: it may have started`, true);
  const now = h("p", { role: "status" }, "Looking what became of it…");
  lookedUp(approval.id).then((found) => {
    if (found) takeApproval(found);
    now.replaceChildren(h("strong", null, found ? `It is now: ${found.status}` : "What became of it cannot be read just now"), found?.status === "approved" ? ". It can be executed again: it starts at most once." : ".");
    loadApprovals();
  });
  setTimeout(() => show("It may have started", h("p", { class: "trouble" }, text), h("p", null, "Do not propose it again before you know how it ended."), now));
}

const notStarted = (approval, problem) => (mayHaveStarted(problem) ? unsure(approval, problem) : refused(problem));

export async function run(approval) {
  try {
    await start(approval, state.tokens.get(approval.id));
  } catch (problem) {
    // a token that was refused for good is of no more use
    if ([401, 403, 410].includes(problem.status) || problem.code === "token_used") state.tokens.delete(approval.id);
    notStarted(approval, problem);
    reload(approval.id).catch(changed);
  }
}

export async function runAgain(approval) {
  try {
    const { token } = await api.decide(approval.id, "token");
    state.tokens.set(approval.id, token);
    await run(approval);
  } catch (problem) {
    refused(problem);
    reload(approval.id).catch(changed);
  }
}

const decided = (title, what, words, text, tone) => (approval) => ask({
  title, intro: about(approval), fields: [REASON], buttons: [{ name: "go", text, tone }],
  async run({ reason }) {
    const now = await api.decide(approval.id, what, { reason });
    state.tokens.delete(approval.id);
    if (now?.id) takeApproval(now);
    reload(approval.id).catch(changed);
    announce(words);
    return true;
  },
});

export const deny = decided("Deny", "deny", "Denied", "Deny", "danger");
const back = { revoke: decided("Take the approval back", "revoke", "Taken back", "Take it back", "danger"), withdraw: decided("Withdraw the proposal", "withdraw", "Withdrawn", "Withdraw", "danger") };
export const revoke = (approval, what) => back[what](approval);

export const closeRun = (approval, execution) => ask({
  title: "How did it end?", intro: about(approval),
  fields: [{ name: "outcome", label: "Outcome", type: "select", options: [["failed", "it did not work"], ["succeeded", "it worked"]] }, REASON],
  buttons: [{ name: "go", text: "Close it" }],
  async run({ outcome, reason }) {
    await api.close(execution.id, outcome, reason);
    reload(approval.id).catch(changed);
    announce("Closed");
    return true;
  },
});
