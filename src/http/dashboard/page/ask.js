// Dialogs that ask for something and do it; what went wrong is said in them, and nothing typed is lost.

import { h } from "./dom.js";
import { unique } from "./api.js";

let fields = 0;

function field(spec) {
  fields += 1;
  const id = `field-${fields}`;
  const props = {
    id, name: spec.name, required: spec.required, maxlength: spec.most, autocomplete: spec.autocomplete ?? "off", placeholder: spec.placeholder,
    spellcheck: spec.type === "textarea" ? "true" : "false", "aria-describedby": spec.hint ? `${id}-hint` : null,
  };
  let input;
  if (spec.type === "textarea") input = h("textarea", { ...props, rows: spec.rows ?? 3 }, spec.value ?? "");
  else if (spec.type === "select") {
    input = h("select", props, spec.options.map(([value, text]) => h("option", { value, selected: value === spec.value }, text)));
  } else input = h("input", { ...props, type: spec.type ?? "text", value: spec.value });
  if (spec.changed) input.addEventListener("input", () => spec.changed(input.value));
  return h("p", { class: "field" }, h("label", { for: id }, spec.label, spec.required ? null : h("span", { class: "quiet" }, " (optional)")),
    input, spec.hint ? h("span", { class: "quiet", id: `${id}-hint` }, spec.hint) : null);
}

/**
 * Opens a dialog. `buttons` are `[{name, text, tone}]`; `run(values, button, key)` does the work and may throw a
 * problem, which is shown; `key` is the same for as long as the values are. Resolves to what `run` gave, or to
 * undefined when it was called off.
 */
export function ask({ title, intro = [], fields: specs = [], buttons, run }) {
  return new Promise((resolve) => {
    const before = document.activeElement;
    const trouble = h("p", { class: "trouble", role: "alert" });
    const cancel = h("button", { type: "button", class: "button" }, "Cancel");
    const submits = buttons.map(({ name, text, tone }) => h("button", { type: "submit", value: name, class: `button ${tone ?? "main"}` }, text));
    const form = h("form", { method: "dialog" }, h("h2", { id: "ask-title" }, title), intro, specs.map(field), trouble, h("p", { class: "buttons" }, submits, cancel));
    const dialog = h("dialog", { class: "ask", "aria-labelledby": "ask-title" }, form);
    let outcome;
    let sent = { values: null, key: null };
    cancel.addEventListener("click", () => dialog.close());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const values = Object.fromEntries(specs.map((spec) => [spec.name, form.elements[spec.name].value]));
      const shown = JSON.stringify(values);
      if (sent.values !== shown) sent = { values: shown, key: unique() };
      trouble.textContent = "";
      submits.forEach((button) => { button.disabled = true; });
      form.setAttribute("aria-busy", "true");
      try {
        outcome = (await run(values, event.submitter?.value ?? buttons[0].name, sent.key)) ?? true;
        dialog.close();
      } catch (problem) {
        trouble.textContent = problem.text ?? "something went wrong in this page";
        if (!problem.text) console.error(problem);
        submits.forEach((button) => { button.disabled = false; });
      }
      form.removeAttribute("aria-busy");
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      // the element may have been drawn again meanwhile
      const same = before?.dataset?.key && [...document.querySelectorAll("[data-key]")].find((element) => element.dataset.key === before.dataset.key);
      (document.contains(before) ? before : same)?.focus({ preventScroll: true });
      resolve(outcome);
    });
    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector("input, textarea, select") ?? submits[0]).focus();
  });
}

/** Shows something until it is closed. */
export function show(title, ...content) {
  const before = document.activeElement;
  const close = h("button", { type: "submit", class: "button main" }, "Close");
  const dialog = h("dialog", { class: "ask", "aria-labelledby": "show-title" },
    h("form", { method: "dialog" }, h("h2", { id: "show-title" }, title), content, h("p", { class: "buttons" }, close)));
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (document.contains(before)) before.focus({ preventScroll: true });
  });
  document.body.append(dialog);
  dialog.showModal();
  close.focus();
}

export const asking = () => document.querySelector("dialog[open]") !== null;
