// What the page knows, and how it stays true: a snapshot over the API, then every event of the feed on top of it.
// What does not come by the feed, or while there is no feed, is asked for again.

import * as api from "./api.js";
import { Feed } from "./feed.js";
import { announce } from "./dom.js";
import { plain, plural } from "./words.js";

/** More than a person reads; the rest is a page further. */
const PAGE = 100;
const KEPT = 600;
const POLL = 10_000;
const HEALTH = 20_000;
const STATS = 60_000;
export const STATS_DAYS = 7;

export const RANK = { critical: 4, error: 3, warning: 2, info: 1, debug: 0 };

export const state = {
  me: null,
  filter: { status: "active", severity: "", source: "", q: "" },
  incidents: new Map(),
  more: null,
  loaded: false,
  trouble: null,
  open: null,
  approvals: new Map(),
  approvalsTrouble: null,
  health: null,
  stats: null,
  killSwitch: null,
  catalogue: null,
  // `since`: when the feed was lost, or null while it is there
  feed: { connected: false, since: null, why: "", refreshed: null },
  /** Approval tokens of this tab: in memory, never stored, gone with the page. */
  tokens: new Map(),
};

const listeners = new Set();
let queued = false;

/** Called after something changed, once for many changes. */
export const watch = (listener) => listeners.add(listener);
export function changed() {
  if (queued) return;
  queued = true;
  // a hidden tab gets no animation frames, but its title and announcements should stay true
  const soon = document.hidden ? (run) => setTimeout(run, 200) : requestAnimationFrame;
  soon(() => {
    queued = false;
    for (const listener of listeners) listener();
  });
}

/** One call at a time, and one more if something changed meanwhile. */
function calm(work, pause) {
  let timer = null;
  let running = false;
  let again = false;
  const run = async () => {
    timer = null;
    running = true;
    again = false;
    try {
      await work();
    } finally {
      running = false;
      changed();
      if (again) ask();
    }
  };
  const ask = () => {
    if (running) again = true;
    else timer ??= setTimeout(run, pause);
  };
  return ask;
}

export const mayOperate = () => ["operator", "admin"].includes(state.me?.role);
/** Policy may name groups whose members decide; which ones, the service knows. */
export const mayDecide = () => mayOperate() || (state.me?.groups ?? []).length > 0;
export const isAdmin = () => state.me?.role === "admin";

const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

/** What was written into the search: words, and perhaps whose it is and labels it has. */
function sought(text) {
  const asked = { q: [], assignee: "", label: [] };
  for (const part of text.split(/\s+/).filter(Boolean)) {
    if (part.startsWith("assignee:")) asked.assignee = part.slice(9);
    else if (part.startsWith("label:") && part.includes("=", 7)) asked.label.push(part.slice(6));
    else asked.q.push(part);
  }
  return { ...asked, q: asked.q.join(" ") };
}

/** Whether the filters let it into the list; what words it is found by, the service knows better. */
function passes(incident) {
  const { status, severity, source } = state.filter;
  const { assignee, label } = sought(state.filter.q);
  if (incident.merged_into) return false;
  if (status === "active" ? incident.status === "resolved" : status && incident.status !== status) return false;
  if (severity && incident.severity !== severity) return false;
  if (source && incident.source !== source) return false;
  if (assignee && incident.assignee !== assignee) return false;
  return label.every((one) => incident.labels?.[one.slice(0, one.indexOf("="))] === one.slice(one.indexOf("=") + 1));
}

/** Whether the incident belongs into the list as it is filtered, as far as its own texts tell. */
export function wanted(incident) {
  if (!passes(incident)) return false;
  const text = [incident.title, incident.description, incident.source, incident.rule, ...Object.values(incident.labels ?? {})].join(" ").toLowerCase();
  return words(sought(state.filter.q).q).every((word) => text.includes(word));
}

/** As an engineer wants to see them: what burns first; what was put aside last. */
export function sorted() {
  const items = [...state.incidents.values()];
  const newest = (a, b) => (a.opened_at < b.opened_at ? 1 : a.opened_at > b.opened_at ? -1 : a.id < b.id ? 1 : -1);
  if (state.filter.status !== "active") return items.sort(newest);
  const asleep = (incident) => (Date.parse(incident.snoozed_until ?? 0) > Date.now() ? 1 : 0);
  return items.sort((a, b) => asleep(a) - asleep(b) || RANK[b.severity] - RANK[a.severity] || newest(a, b));
}

/** What the list needs of an incident; the detail is read when it is opened. */
function light({ alerts, evidence, explanation, similar, runbooks, approvals, changes, ...row }) {
  return row;
}

async function pageOf(filter, cursor) {
  const { status, severity, source, q } = filter;
  const rest = { severity, source, ...sought(q), limit: PAGE };
  if (status !== "active") return api.incidents({ ...rest, status, cursor });
  const pages = await Promise.all(["open", "acknowledged"].map((status) => api.incidents({ ...rest, status, limit: 300 })));
  return { items: pages.flatMap((page) => page.items), next_cursor: null, cut: pages.some((page) => page.next_cursor) };
}

export async function loadIncidents() {
  const filter = JSON.stringify(state.filter);
  try {
    const page = await pageOf(state.filter);
    if (filter !== JSON.stringify(state.filter)) return;
    state.incidents = new Map(page.items.map((incident) => [incident.id, light(incident)]));
    state.more = page.next_cursor;
    state.cut = Boolean(page.cut);
    state.trouble = null;
    state.loaded = true;
    state.feed.refreshed = Date.now();
  } catch (problem) {
    state.trouble = problem;
  }
  changed();
}

export async function loadMore() {
  if (!state.more) return;
  try {
    const page = await pageOf(state.filter, state.more);
    for (const incident of page.items) state.incidents.set(incident.id, light(incident));
    state.more = page.next_cursor;
  } catch (problem) {
    state.trouble = problem;
  }
  changed();
}

export function setFilter(change) {
  Object.assign(state.filter, change);
  for (const [id, incident] of state.incidents) if (!wanted(incident)) state.incidents.delete(id);
  changed();
  return loadIncidents();
}

/** Reads the incident that is open once more. */
export const refresh = calm(async () => {
  const open = state.open;
  if (!open) return;
  try {
    const [detail, timeline] = await Promise.all([api.incident(open.id), api.timeline(open.id).catch(() => null)]);
    Object.assign(open, { detail, timeline: timeline?.items ?? open.timeline, problem: null });
    take(detail);
  } catch (problem) {
    open.problem = problem;
  }
}, 120);

export function openIncident(id) {
  if (state.open?.id === id) return;
  state.open = id ? { id, detail: null, timeline: null, problem: null, why: null } : null;
  if (id) refresh();
  changed();
}

/** Takes an incident as it now is; one that does not fit the filter leaves the list. */
export function take(incident) {
  // one that is there was found, perhaps by its evidence; one that is not is perhaps found when the list is read again
  if (!passes(incident)) state.incidents.delete(incident.id);
  else if (wanted(incident) || state.incidents.has(incident.id)) state.incidents.set(incident.id, { ...state.incidents.get(incident.id), ...light(incident) });
  if (state.incidents.size > KEPT) {
    for (const one of sorted().slice(KEPT)) state.incidents.delete(one.id);
  }
  changed();
}

/** How it went in the last days. */
export const loadStats = calm(async () => {
  try {
    state.stats = await api.incidentStats({ since: new Date(Date.now() - STATS_DAYS * 86_400_000).toISOString() });
  } catch {
    // what was known before is not wrong
  }
}, 60);

const absent = (problem) => problem.status === 404 || problem.status === 503;

export const loadApprovals = calm(async () => {
  try {
    const asked = [{ status: "pending", limit: 200 }, { status: "approved", limit: 100 }, { status: "executing", limit: 100 }, { status: "unknown", limit: 100 }, { limit: 50 }];
    const pages = await Promise.all(asked.map(api.approvals));
    state.approvals = new Map(pages.toReversed().flatMap((page) => page.items).map((approval) => [approval.id, approval]));
    state.approvalsTrouble = null;
    for (const id of state.tokens.keys()) if (state.approvals.get(id)?.status !== "approved") state.tokens.delete(id);
  } catch (problem) {
    state.approvalsTrouble = problem;
  }
}, 60);

export function takeApproval(approval) {
  state.approvals.set(approval.id, approval);
  if (approval.status !== "approved") state.tokens.delete(approval.id);
  if (state.open && state.open.id === approval.incident_id) refresh();
  changed();
}

export const pending = () => [...state.approvals.values()].filter((approval) => approval.status === "pending");

export const loadHealth = calm(async () => {
  try {
    state.health = { ...(await api.health()), at: Date.now() };
  } catch (problem) {
    state.health = { ...state.health, problem, at: Date.now() };
  }
  try {
    state.killSwitch = await api.killSwitch();
  } catch (problem) {
    if (absent(problem) || problem.status === 403) state.killSwitch = null;
  }
}, 60);

export async function loadCatalogue() {
  try {
    const answer = await api.actions();
    state.catalogue = answer.items ?? answer.actions ?? answer;
  } catch {
    state.catalogue = [];
  }
  if (!Array.isArray(state.catalogue)) state.catalogue = [];
  changed();
}

/** Whether the switch that stops every action is engaged. */
export const stopped = () => Boolean(state.killSwitch?.engaged);

// new incidents are told together: a storm must not talk for minutes
let news = [];
function tellNews(incident) {
  news.push(incident);
  if (news.length > 1) return;
  setTimeout(() => {
    const [first] = news.toSorted((a, b) => RANK[b.severity] - RANK[a.severity]);
    const text = news.length === 1 ? `New ${first.severity} incident: ${plain(first.title)}` : `${plural(news.length, "new incident")}, the worst ${first.severity}: ${plain(first.title)}`;
    announce(text, first.severity === "critical");
    news = [];
  }, 1000);
}

function happened({ eventType, data }) {
  if (eventType.startsWith("incident.")) {
    take(data);
    if (eventType === "incident.created" && wanted(data)) tellNews(data);
    if (state.open?.id === data.id) refresh();
    if ((data.changes ?? []).some((change) => change.startsWith("action_"))) loadApprovals();
  } else if (eventType === "enrichment.completed") {
    if (state.open?.id === data.incident_id) refresh();
  } else if (eventType.startsWith("action.")) {
    const approval = data.approval ?? data;
    takeApproval(approval);
    if (eventType === "action.executed") announce(`${plain(approval.title)}: ${approval.status}`, approval.status !== "succeeded");
    if (eventType === "action.proposed") announce(`An action waits for approval: ${plain(approval.title)}`);
  } else if (eventType === "module.health_changed") {
    loadHealth();
    if (data.to === "failed") announce(`Module ${plain(data.module)} failed`, true);
  } else if (eventType === "notification.failed") {
    announce(`Nobody was told by ${plain(data.channel)}, given up after ${plural(data.attempts, "attempt")}: ${plain(data.error)}`, true);
  }
}

/** Everything anew. */
export function resync() {
  loadIncidents();
  refresh();
  loadApprovals();
  loadHealth();
  loadStats();
}

const feed = new Feed({
  ready(resumed) {
    state.feed = { ...state.feed, connected: true, since: null, why: "" };
    // after a first connection, and whenever something was loaded while events were missed
    if (!resumed) resync();
    else { refresh(); loadApprovals(); loadHealth(); }
    changed();
  },
  event: happened,
  resync,
  down(why) {
    // up to now everything came by the feed
    if (state.feed.connected) state.feed.refreshed = Date.now();
    if (state.feed.connected || state.feed.since === null) state.feed = { ...state.feed, connected: false, since: Date.now() };
    state.feed.why = why;
    changed();
  },
  refused() { api.me().catch(() => {}); },
});

export const retryFeed = () => { feed.now(); resync(); };


let timers = [];

export function begin(me) {
  state.me = me;
  feed.start();
  resync();
  timers = [
    setInterval(loadHealth, HEALTH),
    setInterval(loadStats, STATS),
    // without a feed the page still shows what is, a little late; and says so
    setInterval(() => { if (!state.feed.connected) { loadIncidents(); refresh(); loadApprovals(); } }, POLL),
  ];
  changed();
}

export function end() {
  feed.stop();
  timers.forEach(clearInterval);
  state.tokens.clear();
  state.incidents.clear();
  state.approvals.clear();
  Object.assign(state, { me: null, open: null, health: null, stats: null, killSwitch: null, catalogue: null, loaded: false, trouble: null, feed: { connected: false, since: null, why: "", refreshed: null } });
  changed();
}
