// The operator's page: who is there, where they are, and what must not be missed.

import { logOut, me, prove, whenSignedOut } from "./api.js";
import { ApprovalView } from "./approval.js";
import { ApprovalList, follow, openApproval, opened } from "./approvals.js";
import { at, h, Part, said, swap, tick } from "./dom.js";
import { HealthView } from "./health.js";
import { IncidentList } from "./incidents.js";
import { IncidentView } from "./incident.js";
import { help, listen } from "./keys.js";
import { logInForm } from "./login.js";
import { begin, end, openIncident, pending, retryFeed, sorted, state, stopped, watch } from "./store.js";

const app = document.getElementById("app");
let frame = null;

/** `#/incidents/inc_1`: where we are, and what is open there. */
function place() {
  const [, where, id] = location.hash.split("/");
  const known = ["incidents", "approvals", "health"].includes(where) ? where : "incidents";
  let open = null;
  try {
    open = id ? decodeURIComponent(id) : null;
  } catch {
    // not an address of ours
  }
  return { where: known, open };
}

/** What is wrong and must not be missed. */
function notices({ feed, health, halted, loaded }) {
  const all = [];
  if (halted) all.push(["danger", h("strong", null, "Kill switch on."), " No action runs until it is released.", halted.reason ? [" ", said(halted.reason)] : null]);
  if (feed.since && !feed.connected) {
    all.push(["danger", h("strong", null, "Not connected since ", at(new Date(feed.since).toISOString()), "."), loaded
      ? [" What you see is from ", at(new Date(feed.refreshed).toISOString()), "; it is asked for every 10 s."] : " What you see may be old.",
    feed.why ? [" (", said(feed.why), ")"] : null, " ", h("button", { type: "button", class: "button small", "data-key": "retry", on: { click: retryFeed } }, "Try now")]);
  }
  if (health.status === "unhealthy") all.push(["danger", h("strong", null, "The service is unhealthy: nothing can be stored."), " ", said(health.detail ?? "")]);
  else if (health.status === "degraded") all.push(["caution", "The service is degraded. ", said(health.detail ?? ""), " ", h("a", { href: "#/health" }, "What is wrong")]);
  if (health.insecure) all.push(["caution", "This page comes over an open network without TLS: passwords and tokens can be read on the way."]);
  return all.map(([tone, ...text]) => h("p", { class: `notice ${tone}` }, text));
}

function pulse({ connected, since: lost }) {
  const [tone, text] = connected ? ["good", "live"] : lost ? ["bad", "not connected"] : ["", "connecting"];
  return [h("span", { class: `lamp ${tone}`, "aria-hidden": "true" }), text];
}

class Frame {
  constructor() {
    this.incidents = new IncidentList();
    this.incident = new IncidentView();
    this.approvals = new ApprovalList();
    this.approval = new ApprovalView();
    this.health = new HealthView();
    this.tabs = new Part("nav", { "aria-label": "Main" }, (where, waiting, unwell) => [
      ["incidents", "Incidents", ""], ["approvals", "Actions", waiting ? String(waiting) : ""], ["health", "Health", unwell ? "!" : ""],
    ].map(([name, text, badge]) => h("a", { href: `#/${name}`, "data-key": `tab-${name}`, "aria-current": where === name ? "page" : null }, text,
      badge ? h("span", { class: "badge", "aria-label": name === "approvals" ? `${badge} waiting` : "something is wrong" }, badge) : null)));
    this.pulse = new Part("p", { class: "pulse", role: "status" }, pulse);
    this.notices = new Part("div", { id: "notices" }, notices);
    this.content = h("main", { id: "main", tabindex: "-1" });
    this.where = null;
    swap(app,
      h("header", { class: "bar" }, h("a", { class: "brand", href: "#/incidents" }, "OpsPilot"), this.tabs.element, this.pulse.element,
        h("button", { type: "button", class: "button small keyboard", "aria-label": "Keyboard help", on: { click: help } }, "?"),
        h("span", { class: "who" }, said(state.me.username), h("span", { class: "quiet" }, ` ${state.me.role}`)),
        h("button", { type: "button", class: "button small", on: { click: leave } }, "Log out")),
      this.notices.element, this.content);
  }

  /** Follows the address. */
  go() {
    const { where, open } = place();
    if (where === "incidents") openIncident(open);
    else if (where === "approvals") openApproval(open);
    const now = `${where}${open ? "/" : ""}`;
    const moved = now !== this.where;
    this.where = now;
    this.show();
    if (moved) {
      const parts = { incidents: [this.incidents, this.incident], approvals: [this.approvals, this.approval], health: [this.health] }[where];
      this.content.className = `${where}${open ? " opened" : ""}`;
      const wanted = parts.filter((part, index) => index === 0 || open).map((part) => part.element);
      // what stays is not touched, so that the list keeps its place and the focus
      for (const child of [...this.content.children]) if (!wanted.includes(child)) child.remove();
      wanted.forEach((element, index) => { if (this.content.children[index] !== element) this.content.insertBefore(element, this.content.children[index] ?? null); });
    }
    if (open) {
      this.content.querySelector(".detail")?.scrollTo?.(0, 0);
      scrollTo(0, 0);
      this.focusing = `${where.slice(0, -1)}-title`;
    } else if (this.left) {
      [...this.content.querySelectorAll("[data-row]")].find((row) => row.dataset.row === this.left)?.focus();
    }
    this.left = open;
    this.show();
  }

  show() {
    const { where, open } = place();
    follow();
    const health = state.health ?? {};
    this.tabs.show(where, pending().length, ["degraded", "unhealthy"].includes(health.status));
    this.pulse.show({ connected: state.feed.connected, since: state.feed.since });
    this.notices.show({ feed: { ...state.feed, refreshed: state.feed.connected ? null : state.feed.refreshed }, loaded: state.loaded && Boolean(state.feed.refreshed),
      health: { status: health.status, detail: health.detail, insecure: health.insecure }, halted: stopped() ? state.killSwitch : null });
    if (where === "incidents") {
      this.incidents.show();
      if (open) this.incident.show();
    } else if (where === "approvals") {
      this.approvals.show();
      if (open) this.approval.show(opened);
    } else this.health.show();
    const title = this.focusing && document.getElementById(this.focusing);
    if (title) {
      this.focusing = null;
      title.focus({ preventScroll: true });
    }
    const burning = sorted().filter((incident) => incident.status === "open" && ["critical", "error"].includes(incident.severity)).length;
    const count = [burning ? `${burning} open` : "", pending().length ? `${pending().length} to approve` : ""].filter(Boolean).join(", ");
    document.title = `${state.feed.connected ? "" : "✗ "}${count ? `(${count}) ` : ""}OpsPilot`;
  }
}

async function leave() {
  await logOut().catch(() => {});
  out("");
}

function out(why) {
  if (!state.me && frame === null && app.querySelector("form.login")) return;
  end();
  prove(null);
  frame = null;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  document.title = "OpsPilot";
  logInForm(app, why, enter);
}

function enter(who) {
  if (who.role === "integrator") return out("This account only sends signals; it sees nothing here.");
  begin(who);
  frame = new Frame();
  frame.go();
}

whenSignedOut(() => { if (state.me) out("Your session is over. Log in again."); });
watch(() => frame?.show());
addEventListener("hashchange", () => frame?.go());
setInterval(tick, 1000);
listen();

try {
  const who = await me();
  prove(who.csrf_token);
  enter(who);
} catch (problem) {
  out(problem.status === 401 ? "" : problem.text);
}
