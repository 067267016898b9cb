// What an operator does with an incident.

import { act } from "./api.js";
import { ask } from "./ask.js";
import { announce, h, said } from "./dom.js";
import { propose } from "./propose.js";
import { refresh, sorted, state, take } from "./store.js";
import { moment, plain } from "./words.js";

const about = (incident) => h("p", { class: "prose" }, said(incident.title));

async function done(incident, what, body, key, words) {
  const now = await act(incident.id, what, body, key);
  if (now?.id === incident.id) take(now);
  refresh();
  announce(words);
  return true;
}

export const acknowledge = (incident) => ask({
  title: "Acknowledge", intro: [about(incident)],
  fields: [{ name: "note", label: "Note", type: "textarea", most: 4096, hint: "What you are about to look at, for whoever else is awake." }],
  buttons: [{ name: "go", text: "Acknowledge" }],
  run: ({ note }, _, key) => done(incident, "acknowledge", note ? { note } : {}, key, "Acknowledged"),
});

/** Without a dialog: the fast way, from the keyboard. */
export async function acknowledgeNow(incident) {
  try {
    await done(incident, "acknowledge", {}, undefined, "Acknowledged");
  } catch (problem) {
    announce(problem.text, true);
    ask({ title: "Not acknowledged", intro: [h("p", null, problem.text)], buttons: [{ name: "go", text: "Close" }], run: () => true });
  }
}

const resolve = (incident) => ask({
  title: "Resolve", intro: [about(incident), h("p", { class: "quiet" }, "If one of its alerts fires again, it opens again.")],
  fields: [{ name: "resolution", label: "How it ended", type: "textarea", most: 4096 }],
  buttons: [{ name: "go", text: "Resolve" }],
  run: ({ resolution }, _, key) => done(incident, "resolve", resolution ? { resolution } : {}, key, "Resolved"),
});

const note = (incident) => ask({
  title: "Note", intro: [about(incident)],
  fields: [{ name: "text", label: "Text", type: "textarea", rows: 5, most: 4096, required: true }],
  buttons: [{ name: "go", text: "Write it down" }],
  run: ({ text }, _, key) => done(incident, "notes", { text }, key, "Written down"),
});

const assign = (incident) => ask({
  title: "Assign", intro: [about(incident)],
  fields: [{ name: "assignee", label: "Account", value: incident.assignee ?? state.me.username, most: 128, hint: "Empty for nobody." }],
  buttons: [{ name: "go", text: "Assign" }],
  run: ({ assignee }, _, key) => done(incident, "assign", { assignee: assignee.trim() || null }, key, "Assigned"),
});

/** Eight in the morning, the next time that it is at least two hours away. */
function morning() {
  const date = new Date(Date.now() + 2 * 3_600_000);
  if (date.getHours() >= 8) date.setDate(date.getDate() + 1);
  date.setHours(8, 0, 0, 0);
  return date.getTime();
}

const snooze = (incident) => ask({
  title: "Snooze", intro: [about(incident), h("p", { class: "quiet" }, "It comes back then, or when it gets worse.")],
  fields: [{ name: "how", label: "Until", type: "select", value: "30", options: [["15", "in 15 minutes"], ["30", "in 30 minutes"], ["60", "in an hour"], ["240", "in four hours"], ["morning", `in the morning (${moment(new Date(morning()).toISOString())})`]] }],
  buttons: [{ name: "go", text: "Snooze" }],
  run: ({ how }, _, key) => {
    const until = how === "morning" ? morning() : Date.now() + Number(how) * 60_000;
    return done(incident, "snooze", { until: new Date(until).toISOString() }, key, "Snoozed");
  },
});

const reopen = (incident) => ask({
  title: "Reopen", intro: [about(incident)], buttons: [{ name: "go", text: "It is not over" }],
  run: (values, _, key) => done(incident, "reopen", {}, key, "Open again"),
});

/** Goes to the incident that a merger or a split leaves or makes. */
async function goes(incident, what, body, key, words) {
  const now = await act(incident.id, what, body, key);
  take(now);
  refresh();
  announce(words);
  location.hash = `#/incidents/${encodeURIComponent(now.id)}`;
  return true;
}

const others = (incident) => sorted().filter((one) => one.id !== incident.id && one.status !== "resolved").slice(0, 200);

const merge = (incident) => ask({
  title: "Merge", intro: [about(incident), h("p", { class: "quiet" }, "Its alerts and evidence go to the other, and this one ends. Taking them out again undoes it.")],
  fields: [{ name: "into", label: "Into", type: "select", required: true, options: others(incident).map((one) => [one.id, `${one.severity}: ${plain(one.title, 80)}`]) }],
  buttons: [{ name: "go", text: "Merge" }],
  run: ({ into }, _, key) => goes(incident, "merge", { into }, key, "Merged"),
});

/** Takes one alert out of an incident. */
export const split = (incident, alert) => ask({
  title: "Take out", intro: [h("p", { class: "prose" }, said(alert.title)), h("p", { class: "quiet" }, "It becomes an incident of its own, which joins no other again.")],
  buttons: [{ name: "go", text: "Take it out" }],
  run: (values, _, key) => goes(incident, "split", { alerts: [alert.id] }, key, "Taken out"),
});

/** The buttons that make sense now. */
export function deeds(incident) {
  if (incident.merged_into) return [];
  const resolved = incident.status === "resolved";
  return [
    incident.status === "open" ? { key: "ack", text: "Acknowledge", tone: "main", run: () => acknowledge(incident) } : null,
    resolved ? { key: "reopen", text: "Reopen", run: () => reopen(incident) } : { key: "resolve", text: "Resolve", run: () => resolve(incident) },
    { key: "assign", text: "Assign", run: () => assign(incident) },
    resolved ? null : { key: "snooze", text: "Snooze", run: () => snooze(incident) },
    { key: "note", text: "Note", run: () => note(incident) },
    !resolved && others(incident).length ? { key: "merge", text: "Merge", run: () => merge(incident) } : null,
    !resolved && state.catalogue?.length ? { key: "propose", text: "Propose an action", run: () => propose(incident) } : null,
  ].filter(Boolean);
}
