// The kill switch: nothing runs while it is on.

import { setKillSwitch } from "./api.js";
import { ask } from "./ask.js";
import { announce, h } from "./dom.js";
import { isAdmin, loadHealth, stopped } from "./store.js";

const flip = (on) => ask({
  title: on ? "Stop every action?" : "Allow actions again?",
  intro: [h("p", { class: "prose" }, on ? "Nothing that is approved runs until the switch is released. What runs already is not cut off." : "What is approved and still in time can run again.")],
  fields: [{ name: "reason", label: "Reason", type: "textarea", most: 2000, required: true, hint: "It goes on record." }],
  buttons: [{ name: "go", text: on ? "Stop every action" : "Allow actions again", tone: on ? "danger" : "main" }],
  run: async ({ reason }) => { await setKillSwitch(on, reason); loadHealth(); announce(on ? "Every action is stopped" : "Actions are allowed again"); return true; },
});

export const haltButton = () => {
  const on = stopped();
  if (on && !isAdmin()) return h("p", { class: "quiet" }, "An admin can release the kill switch.");
  return h("p", { class: "buttons" }, h("button", { type: "button", class: `button ${on ? "main" : "danger"}`, "data-key": "halt", on: { click: () => flip(!on) } }, on ? "Release the kill switch…" : "Kill switch: stop every action…"));
};
