// Who is there.

import { logIn, me, prove } from "./api.js";
import { h, swap } from "./dom.js";

/** The log-in form; `done(me)` once somebody is in. */
export function logInForm(app, why, done) {
  const trouble = h("p", { class: "trouble", role: "alert" }, why);
  const name = h("input", { id: "username", name: "username", autocomplete: "username", required: true, spellcheck: "false" });
  const password = h("input", { id: "password", name: "password", type: "password", autocomplete: "current-password", required: true });
  const button = h("button", { type: "submit", class: "button main" }, "Log in");
  const form = h("form", { class: "login", method: "post", on: { submit } },
    h("h1", null, "OpsPilot"),
    h("p", { class: "field" }, h("label", { for: "username" }, "Name"), name),
    h("p", { class: "field" }, h("label", { for: "password" }, "Password"), password),
    trouble, h("p", { class: "buttons" }, button),
    h("p", { class: "quiet" }, "The first start of the service printed a password for ", h("code", null, "admin"), " and one for ", h("code", null, "approver"), ". ",
      h("a", { href: "/api/docs/" }, "The API"), " is documented here too."));

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    trouble.textContent = "";
    try {
      const session = await logIn(name.value, password.value);
      prove(session.csrf_token);
      const who = await me();
      prove(who.csrf_token ?? session.csrf_token);
      password.value = "";
      done(who);
    } catch (problem) {
      trouble.textContent = problem.text ?? "something went wrong in this page";
      button.disabled = false;
      password.focus();
      password.select();
    }
  }

  swap(app, h("main", { id: "main", tabindex: "-1" }, form));
  name.focus();
}
