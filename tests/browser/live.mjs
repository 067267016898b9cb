// Logging in; incidents that appear, change and vanish without a reload; a lost connection that is admitted and made good.

import assert from "node:assert/strict";
import { alert, api, base, harmless, loggedIn, row, story, tab, token, until } from "./lib.mjs";

await story(async () => {
  const admin = await token("admin");

  // a wrong password is refused in words, and nothing is shown
  const page = await tab();
  await page.goto(base);
  await page.getByLabel("Name").fill("admin");
  await page.getByLabel("Password").fill("not the password");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("alert").filter({ hasText: "wrong name or password" }).waitFor();
  assert.equal(await page.getByRole("navigation").count(), 0);
  await page.getByLabel("Password").fill(process.env.OPSPILOT_PASSWORD);
  await page.keyboard.press("Enter");
  await page.getByText("live", { exact: true }).waitFor();
  const cookies = await page.context().cookies();
  assert.ok(cookies.every((cookie) => cookie.httpOnly && cookie.sameSite === "Strict"), JSON.stringify(cookies));
  assert.equal(await page.evaluate(() => document.cookie), "", "no script reads the session");
  assert.deepEqual(await page.evaluate(() => [localStorage.length, sessionStorage.length]), [0, 0], "nothing is stored");

  // an incident appears by itself, and is told to who does not see the page
  await page.evaluate(() => { globalThis.unloaded = false; });
  await alert(admin, { name: "payments", title: "Payments failing" });
  await row(page, "Payments failing").waitFor();
  await until("the announcement", async () => (await page.locator("#urgent").textContent()).includes("Payments failing"));
  assert.match(await page.title(), /1 open/);
  assert.equal(await page.evaluate(() => globalThis.unloaded), false, "the page was not loaded anew");

  // what others do to it is seen in the list and in the detail
  await row(page, "Payments failing").click();
  await page.getByRole("heading", { name: "Payments failing" }).waitFor();
  const id = decodeURIComponent(new URL(page.url()).hash.split("/")[2]);
  const approver = await token("approver");
  await api(approver, "POST", `/api/incidents/${id}/acknowledge`, { note: "looking at the payment provider" });
  await page.getByRole("article").getByText("acknowledged", { exact: true }).first().waitFor();
  await page.getByText("looking at the payment provider").waitFor();

  // a text that somebody types survives what comes in meanwhile
  await page.getByRole("button", { name: "Note" }).click();
  await page.getByLabel("Text").fill("half a sent");
  await api(approver, "POST", `/api/incidents/${id}/notes`, { text: "a note from the other side" });
  await page.getByText("a note from the other side").waitFor();
  assert.equal(await page.getByLabel("Text").inputValue(), "half a sent");
  await page.getByLabel("Text").fill("a whole sentence");
  await page.getByRole("button", { name: "Write it down" }).click();
  await page.getByText("a whole sentence").waitFor();

  // what the service refuses is said where it was asked, with what was typed still there
  await page.getByRole("button", { name: "Assign" }).click();
  await page.getByLabel("Account").fill("nobody-of-this-name");
  await page.getByRole("dialog").getByRole("button", { name: "Assign" }).click();
  await page.getByRole("dialog").getByRole("alert").filter({ hasText: "no account of this name" }).waitFor();
  await page.getByLabel("Account").fill("approver");
  await page.getByRole("dialog").getByRole("button", { name: "Assign" }).click();
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.getByRole("article").getByText("Assigned to").waitFor();

  // a lost connection is admitted, with its time; what was missed is made good
  await page.context().setOffline(true);
  await page.getByText(/Not connected since \d\d:\d\d:\d\d/).waitFor();
  assert.match(await page.title(), /✗/);
  await alert(admin, { name: "queue", title: "Queue is full", severity: "error" });
  await api(admin, "POST", `/api/incidents/${id}/resolve`, { resolution: "the provider is back" });
  assert.equal(await row(page, "Queue is full").count(), 0);
  await page.context().setOffline(false);
  await row(page, "Queue is full").waitFor();
  await row(page, "Payments failing").waitFor({ state: "detached" });
  await page.getByText("Not connected since").waitFor({ state: "detached" });
  await page.getByText("the provider is back").first().waitFor();

  // filters
  await page.getByLabel("Severity").selectOption("warning");
  await page.getByText("No incident matches these filters.").waitFor();
  await alert(admin, { name: "other", title: "Not to be seen under this filter", severity: "error" });
  await alert(admin, { name: "third", title: "A warning that matches", severity: "warning" });
  await row(page, "A warning that matches").waitFor();
  assert.equal(await row(page, "Not to be seen").count(), 0);
  await page.getByLabel("Severity").selectOption("");
  await row(page, "Not to be seen").waitFor();
  await page.getByLabel("Words").fill("full queue");
  await row(page, "Not to be seen").waitFor({ state: "detached" });
  assert.equal(await row(page, "Queue is full").count(), 1);

  // who may only look is offered nothing else
  await api(admin, "POST", "/api/users", { username: "vera", role: "viewer", password: process.env.OPSPILOT_PASSWORD });
  const viewer = await loggedIn("vera");
  await row(viewer, "Queue is full").click();
  await viewer.getByText("You may look.").waitFor();
  assert.equal(await viewer.getByRole("button", { name: "Resolve" }).count(), 0);
  await harmless(viewer);

  // logging out in one tab ends the other
  const other = await tab({ context: page.context() });
  await other.goto(base);
  await other.getByText("live", { exact: true }).waitFor();
  await other.getByRole("button", { name: "Log out" }).click();
  await page.getByText("Your session is over").waitFor();
  assert.equal(await page.locator("[data-row]").count(), 0, "nothing stays on the screen");
  await harmless(page);
  await harmless(other);
});
