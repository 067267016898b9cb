// Incidents are found by what they rest on, and looked back at: the picture, the document, what it all came to.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { alert, api, base, harmless, loggedIn, picture, row, story, token, until } from "./lib.mjs";

await story(async () => {
  const admin = await token("admin");
  await alert(admin, { name: "first", source: "one", title: "The first incident", labels: { env: "prod" } });
  await alert(admin, { name: "second", source: "two", title: "The second incident", labels: { env: "test" } });
  const first = await until("the first incident", async () => (await api(admin, "GET", "/api/incidents?q=first")).items[0]);
  await api(admin, "POST", `/api/incidents/${first.id}/acknowledge`, {});
  for (const value of [91, 95, 99.5]) await api(admin, "POST", "/api/events", { source: "host-7", name: "heat", value });
  const hot = await until("the hot incident", async () => (await api(admin, "GET", "/api/incidents?q=heat")).items[0]);

  const page = await loggedIn("admin");
  await row(page, "The first incident").waitFor();
  await page.locator("[data-part=stats]", { hasText: /3 incidents in 7 days, half acknowledged within/ }).waitFor();

  // words of the evidence, and labels, find what the list's own texts do not show
  const words = page.getByLabel("Words");
  await words.fill("label:env=prod");
  await row(page, "The second incident").waitFor({ state: "detached" });
  assert.equal(await page.locator("[data-row]").count(), 1);
  await words.fill("host-7 hea");
  await row(page, hot.title).waitFor();
  // news of what was found does not take it out of the list again
  await api(admin, "POST", `/api/incidents/${hot.id}/assign`, { assignee: "approver" });
  await row(page, hot.title).getByText("approver").waitFor();
  await words.fill("assignee:approver");
  await row(page, hot.title).waitFor();

  // the picture of what was measured is drawn
  await row(page, hot.title).click();
  const chart = page.getByRole("img", { name: "What was measured, over time" });
  await chart.waitFor();
  await until("the picture", () => chart.evaluate((image) => image.complete && image.naturalWidth > 0));
  await picture(page, "measured");

  // the document is there to be kept, and is reached with the keyboard
  const link = page.getByRole("link", { name: "Post-mortem" });
  await link.focus();
  const [download] = await Promise.all([page.waitForEvent("download"), page.keyboard.press("Enter")]);
  assert.equal(download.suggestedFilename(), `postmortem-${hot.id}.md`);
  const document = await readFile(await download.path(), "utf8");
  assert.match(document, /^# Post-mortem: `/);
  assert.match(document, /`heat` = 91/);

  // two become one and two again
  await words.fill("");
  await row(page, "The first incident").click();
  await page.getByRole("button", { name: "Merge" }).click();
  await page.getByLabel("Into").selectOption({ label: "critical: The second incident" });
  await page.getByRole("dialog").getByRole("button", { name: "Merge" }).click();
  await page.getByRole("heading", { name: "The second incident" }).waitFor();
  await row(page, "The first incident").waitFor({ state: "detached" });
  await page.goto(`${base}/#/incidents/${first.id}`);
  await page.getByText("Merged into", { exact: true }).waitFor();
  await picture(page, "merged");
  await page.getByRole("article").locator("dd a").click();
  await page.getByRole("listitem").filter({ hasText: "The first incident" }).getByRole("button", { name: "Take out" }).click();
  await page.getByRole("button", { name: "Take it out" }).click();
  await page.getByRole("heading", { name: "The first incident" }).waitFor();
  assert.equal((await api(admin, "GET", `/api/incidents/${first.id}`)).status, "acknowledged");
  await harmless(page);
});
