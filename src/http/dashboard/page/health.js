// How the service itself is.

import { switchModule } from "./api.js";
import { ask } from "./ask.js";
import { announce, h, Part, said, since } from "./dom.js";
import { haltButton } from "./halt.js";
import { isAdmin, loadHealth, mayOperate, state } from "./store.js";
import { span } from "./words.js";

const GRADE = { failed: 0, degraded: 1, restarting: 2, healthy: 3, disabled: 4 };

async function change(module, to, words) {
  await ask({
    title: `${words} ${module.id}?`, intro: [module.detail ? h("p", { class: "prose" }, said(module.detail)) : null], buttons: [{ name: "go", text: words, tone: to === "disable" ? "danger" : "main" }],
    run: async () => { await switchModule(module.id, to); loadHealth(); announce(`${module.id}: done`); return true; },
  });
}

function overview(health) {
  if (!health) return h("p", { class: "quiet" }, "Reading…");
  const trouble = health.problem ? h("p", { class: "trouble" }, `This may be old: ${health.problem.text ?? "the service cannot be reached"}.`) : null;
  return [
    trouble,
    h("p", { class: "row-head" }, h("span", { class: `status ${health.status}` }, health.status ?? "unknown"), health.detail ? said(health.detail) : null),
    health.version ? h("p", { class: "quiet" }, `OpsPilot ${health.version}, up for ${span((health.uptime_secs ?? 0) * 1000)}. `, h("a", { href: "/api/docs/" }, "The API"), " · ", h("a", { href: "/api/audit/checkpoint" }, "audit checkpoint")) : null,
  ];
}

function table(modules, admin) {
  if (!modules?.length) return null;
  const rows = modules.toSorted((a, b) => (GRADE[a.status] ?? 5) - (GRADE[b.status] ?? 5) || (a.id < b.id ? -1 : 1));
  const buttons = (module) => h("span", { class: "buttons" },
    module.status === "disabled" || module.status === "failed" ? h("button", { type: "button", class: "button small", "data-key": `enable ${module.id}`, "aria-label": `Start ${module.id}`, on: { click: () => change(module, "enable", "Start") } }, "Start…")
      : [h("button", { type: "button", class: "button small", "data-key": `restart ${module.id}`, "aria-label": `Restart ${module.id}`, on: { click: () => change(module, "restart", "Restart") } }, "Restart…"),
        h("button", { type: "button", class: "button small", "data-key": `disable ${module.id}`, "aria-label": `Stop ${module.id}`, on: { click: () => change(module, "disable", "Stop") } }, "Stop…")]);
  return h("ul", { class: "modules", "aria-label": "Modules" }, rows.map((module) =>
    h("li", { class: module.status }, h("span", { class: "row-head" }, h("b", null, said(module.id)), h("span", { class: `status ${module.status}` }, module.status), h("span", { class: "row-time quiet" }, since(module.since))),
      h("span", { class: "quiet" }, [module.restarts ? `${module.restarts} restarts` : null, module.queue ? `${module.queue} waiting` : null].filter(Boolean).join(" · ")),
      module.detail ? h("span", { class: "prose" }, said(module.detail)) : null,
      admin && !/^(core|ui)\./.test(module.id) ? buttons(module) : null)));
}

export class HealthView {
  constructor() {
    this.overview = new Part("div", null, overview);
    this.halt = new Part("div", null, (killSwitch, rights) => (killSwitch && rights ? haltButton() : null));
    this.table = new Part("div", null, table);
    this.element = h("section", { class: "page", "aria-labelledby": "health-title" }, h("h1", { id: "health-title" }, "Health"), this.overview.element, this.halt.element, this.table.element);
  }

  show() {
    const { modules, at, uptime_secs, problem, ...health } = state.health ?? {};
    // the uptime changes all the time and says little: to the minute it is enough
    this.overview.show(state.health && { ...health, uptime_secs: Math.floor((uptime_secs ?? 0) / 60) * 60, problem: problem && { text: problem.text } });
    this.halt.show(state.killSwitch, mayOperate());
    this.table.show(modules, isAdmin());
  }
}
