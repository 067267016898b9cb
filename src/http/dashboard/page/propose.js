// A person proposes an action of the catalogue; somebody else approves it.

import { act } from "./api.js";
import { ask } from "./ask.js";
import { announce, h, said } from "./dom.js";
import { loadApprovals, refresh, state, takeApproval } from "./store.js";
import { plain } from "./words.js";

const about = (incident) => (incident.title ? h("p", { class: "prose" }, said(incident.title)) : null);

/** The slots of an action, however the catalogue lists them. */
function slots(action) {
  const params = action.params ?? {};
  return Array.isArray(params) ? params.map((param) => [param.name, param]) : Object.entries(params);
}

async function choose() {
  const { catalogue } = state;
  if (catalogue.length === 1) return catalogue[0];
  const chosen = await ask({
    title: "Propose an action",
    fields: [{ name: "action", label: "Action", type: "select", options: catalogue.map((action) => [action.id, `${plain(action.title ?? action.id, 80)} (${action.risk})`]) }],
    buttons: [{ name: "go", text: "Go on" }],
    run: ({ action }) => action,
  });
  return catalogue.find((action) => action.id === chosen);
}

/** Integers and truth values are sent as such; the service checks every one by its type. */
function typed(kind, text) {
  if (kind === "int" && /^-?\d+$/.test(text.trim())) return Number(text);
  if (kind === "bool" && /^(true|false)$/.test(text.trim())) return text.trim() === "true";
  return text;
}

export async function propose(incident, pick) {
  const action = pick ? state.catalogue.find((one) => one.id === pick.action) : await choose();
  if (!action) return;
  const params = slots(action);
  await ask({
    title: `Propose: ${plain(action.title ?? action.id, 80)}`,
    intro: [about(incident), h("p", { class: "quiet" }, `Risk: ${action.risk}. Nothing runs before somebody else has approved it.`)],
    fields: [
      ...params.map(([name, param]) => {
        const value = pick?.params?.[name] ?? param.default ?? incident.labels?.[name] ?? "";
        const options = param.values ?? param.options;
        return { name: `param ${name}`, label: name, required: !param.optional, value: String(value), hint: param.type ?? null,
          ...(Array.isArray(options) ? { type: "select", options: options.map((one) => [String(one), String(one)]) } : {}) };
      }),
      { name: "reasoning", label: "Why this helps", type: "textarea", most: 4096, required: true },
    ],
    buttons: [{ name: "go", text: "Propose" }],
    run: async ({ reasoning, ...given }, _, key) => {
      const filled = Object.fromEntries(params.map(([name, param]) => [name, typed(param.type, given[`param ${name}`])]));
      const approval = await act(incident.id, "proposals", { action: action.id, params: filled, reasoning }, key);
      if (approval?.id) takeApproval(approval);
      loadApprovals();
      refresh();
      announce("Proposed; somebody else approves it");
      return true;
    },
  });
}
