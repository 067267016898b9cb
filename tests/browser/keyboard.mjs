// Everything without a mouse, with the focus always to be seen and never caught.

import assert from "node:assert/strict";
import { alert, api, base, harmless, PASSWORD, row, story, tab, token } from "./lib.mjs";

const focused = (page) => page.evaluate(() => document.activeElement?.textContent ?? "");

/** A text without how long ago something was, which goes on while the test does. */
const withoutAge = (text) => text.replace(/\d+ s ago/, "");

/** Whether the focused element shows that it is. */
const visible = (page) => page.evaluate(() => {
  const style = getComputedStyle(document.activeElement);
  return document.activeElement === document.body || (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2);
});

await story(async () => {
  const admin = await token("admin");
  for (const name of ["first", "second", "third"]) await alert(admin, { name, title: `The ${name} incident`, severity: "error" });

  const page = await tab();
  await page.goto(base);
  await page.getByLabel("Name").waitFor();
  await page.keyboard.type("admin");
  await page.keyboard.press("Tab");
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press("Enter");
  await row(page, "The third incident").waitFor();
  await row(page, "The first incident").waitFor();

  // down, down, up; open; acknowledge; back, and the focus is where it was
  await page.keyboard.press("j");
  assert.match(await focused(page), /The third incident/);
  assert.ok(await visible(page));
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await page.keyboard.press("k");
  assert.match(await focused(page), /The second incident/);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "The second incident" }).waitFor();
  await page.keyboard.press("a");
  await page.getByRole("article").getByText("acknowledged", { exact: true }).first().waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("article").waitFor({ state: "detached" });
  assert.match(await focused(page), /The second incident/);
  const incidents = await api(admin, "GET", "/api/incidents?status=acknowledged");
  assert.deepEqual(incidents.items.map((incident) => [incident.title, incident.acknowledged_by]), [["The second incident", "admin"]]);

  // a key that is part of a text is only that
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.name), "q");
  await page.keyboard.type("ajk?");
  assert.equal(await page.getByLabel("Words").inputValue(), "ajk?");
  await page.getByText("No incident matches these filters.").waitFor();
  await page.keyboard.press("Control+a");
  await page.keyboard.press("Delete");
  await row(page, "The first incident").waitFor();
  await page.keyboard.press("Escape");

  // help opens and closes, and gives the focus back
  await page.keyboard.press("j");
  const before = withoutAge(await focused(page));
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  assert.equal(withoutAge(await focused(page)), before);

  // single keys can be turned off
  await page.keyboard.press("?");
  await page.getByLabel("Single keys do something").uncheck();
  await page.keyboard.press("Escape");
  await page.keyboard.press("?");
  assert.equal(await page.getByRole("dialog").count(), 0);
  await page.getByRole("button", { name: "Keyboard help" }).click();
  await page.getByLabel("Single keys do something").check();
  await page.keyboard.press("Escape");

  // a dialog keeps the focus, says what it is, and lets go of it
  await row(page, "The first incident").focus();
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Resolve" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog", { name: "Resolve" }).waitFor();
  for (let i = 0; i < 8; i += 1) {
    await page.keyboard.press("Tab");
    assert.ok(await page.evaluate(() => document.activeElement === document.body || document.querySelector("dialog").contains(document.activeElement)));
  }
  await page.keyboard.press("Escape");
  assert.equal(await focused(page), "Resolve");

  // Tab goes through everything and out again: nowhere is it caught, everywhere it is seen
  await page.evaluate(() => document.activeElement.blur());
  const passed = new Set();
  for (let i = 0; i < 80; i += 1) {
    await page.keyboard.press("Tab");
    assert.ok(await visible(page), `the focus is not seen on ${await focused(page)}`);
    passed.add(await page.evaluate(() => `${document.activeElement.tagName} ${document.activeElement.getAttribute("href") ?? document.activeElement.textContent.slice(0, 30)}`));
  }
  for (const one of ["A #main", "A #/approvals", "BUTTON Acknowledge", "BUTTON Log out", "SUMMARY Why this incident: every decis"]) assert.ok(passed.has(one), `${one} is not reached: ${[...passed]}`);

  // g a, g h, g i
  await page.evaluate(() => document.activeElement.blur());
  for (const [key, place] of [["a", "#/approvals"], ["h", "#/health"], ["i", "#/incidents"]]) {
    await page.keyboard.press("g");
    await page.keyboard.press(key);
    await page.waitForURL((url) => url.hash === place);
  }
  await harmless(page);
});
