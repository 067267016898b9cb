// From a proposal to its run, by clicks: what is shown is what is approved, and what is approved is what runs.

import assert from "node:assert/strict";
import { alert, api, harmless, loggedIn, PASSWORD, picture, row, story, token, until } from "./lib.mjs";

await story(async () => {
  const admin = await token("admin");
  await alert(admin, { name: "payments", title: "Payments failing" });
  const incident = await until("the incident", async () => (await api(admin, "GET", "/api/incidents?q=payments")).items[0]);

  // a person proposes, and cannot approve it
  const proposer = await loggedIn("admin");
  await row(proposer, "Payments failing").click();
  await proposer.getByRole("button", { name: "Propose an action" }).click();
  const choice = proposer.getByRole("dialog").getByLabel("Action");
  await choice.selectOption("say");
  await proposer.getByRole("button", { name: "Go on" }).click();
  await proposer.getByRole("textbox", { name: "words" }).fill("it's <b>repaired</b>; $(true)");
  await proposer.getByLabel("Why this helps").fill("<img src=x onerror=alert(1)> it helped the last time");
  await proposer.getByRole("button", { name: "Propose", exact: true }).click();
  await proposer.getByRole("dialog").waitFor({ state: "detached" });
  await proposer.getByRole("article").locator("a[href^='#/approvals/']").click();
  await proposer.getByText("You proposed this: somebody else has to approve it.").waitFor();
  assert.equal(await proposer.getByRole("button", { name: "Approve…" }).count(), 0);

  // it appears to the approver by itself
  const approver = await loggedIn("approver");
  await approver.getByRole("link", { name: /^Actions/ }).click();
  await row(approver, /./).first().click();
  await approver.getByRole("heading", { name: "What exactly will run" }).waitFor();
  const argv = await approver.locator(".argv li").allTextContents();
  assert.equal(argv.at(-1), "it's <b>repaired</b>; $(true)", "each element stands by itself");
  assert.ok((await approver.locator(".command").first().textContent()).endsWith(String.raw`'it'\''s <b>repaired</b>; $(true)'`), "the command line can be read in one way only");
  await approver.getByText("This page computed the same digest from the plan it shows.").waitFor();
  const { items } = await api(admin, "GET", "/api/approvals?status=pending");
  const digest = items[0].plan_digest.replace("sha256:", "");
  assert.equal(await approver.locator(".digest strong").first().textContent(), digest.slice(0, 12));
  assert.equal(await approver.locator(".digest").first().textContent(), items[0].plan_digest);
  await picture(approver, "approval");

  await approver.getByRole("button", { name: "Approve…" }).click();
  await approver.getByRole("button", { name: "Approve and execute" }).click();
  assert.equal(await approver.getByRole("dialog").count(), 1, "not without a reason");
  await approver.getByLabel("Reason").fill("it is safe");
  await approver.getByRole("button", { name: "Approve and execute" }).click();
  await approver.getByRole("article").getByText("succeeded").first().waitFor();
  assert.match(await approver.locator(".output").first().textContent(), /it's <b>repaired<\/b>; \$\(true\)/);
  await picture(approver, "execution");
  // the proposer's screen shows the same, without a reload
  await proposer.getByRole("article").getByText("succeeded").first().waitFor();
  assert.deepEqual(await approver.evaluate(() => [localStorage.length, sessionStorage.length]), [0, 0], "the token is stored nowhere");

  // approved now, executed later with the token of this tab; after a reload with a new one
  const propose = (words) => api(admin, "POST", `/api/incidents/${incident.id}/proposals`, { action: "say", params: { words }, reasoning: "once more" }, 201);
  await propose("second");
  await approver.getByRole("link", { name: /^Actions/ }).click();
  await row(approver, /pending/).first().click();
  await approver.getByRole("button", { name: "Approve…" }).click();
  await approver.getByLabel("Reason").fill("later");
  await approver.getByRole("button", { name: "Approve only" }).click();
  await approver.getByRole("button", { name: "Execute now" }).waitFor();
  await approver.reload();
  await approver.getByRole("button", { name: "Execute with a new token" }).click();
  await approver.getByRole("article").getByText("succeeded").first().waitFor();

  // denied
  await propose("third");
  await approver.getByRole("link", { name: /^Actions/ }).click();
  await row(approver, /pending/).first().click();
  await approver.getByRole("button", { name: "Deny…" }).click();
  await approver.getByLabel("Reason").fill("not again");
  await approver.getByRole("button", { name: "Deny", exact: true }).click();
  await approver.getByRole("article").getByText("denied").first().waitFor();

  // the answer to a start is lost: the page does not say that nothing was started, and shows what became of it
  for (const [words, lose, became] of [
    ["fourth", async (route) => { await route.fetch(); await route.abort(); }, /executing|succeeded/],
    ["fifth", (route) => route.fulfill({ status: 503, contentType: "application/problem+json", body: '{"title":"x","status":503,"detail":"the service is busy","code":"unavailable"}' }), /approved/],
  ]) {
    await approver.route("**/execute", lose, { times: 1 });
    await propose(words);
    await approver.getByRole("link", { name: /^Actions/ }).click();
    await row(approver, /pending/).first().click();
    await approver.getByRole("button", { name: "Approve…" }).click();
    await approver.getByLabel("Reason").fill("and the answer is lost");
    await approver.getByRole("button", { name: "Approve and execute" }).click();
    const lost = approver.getByRole("dialog", { name: "It may have started" });
    await lost.getByText("Do not propose it again").waitFor();
    await lost.getByText(/^It is now: /).filter({ hasText: became }).waitFor();
    await lost.getByRole("button", { name: "Close" }).click();
  }
  // nothing was started, and the same token still does it
  await approver.getByRole("button", { name: "Execute now" }).click();
  await approver.getByRole("article").getByText("succeeded").first().waitFor();

  // the destructive tier asks for the password, and for two people
  await api(admin, "POST", "/api/users", { username: "olga", role: "operator", password: PASSWORD });
  await api(admin, "POST", `/api/incidents/${incident.id}/proposals`, { action: "destroy", params: {}, reasoning: "no other way" }, 201);
  const olga = await loggedIn("olga");
  for (const page of [approver, olga]) {
    await page.getByRole("link", { name: /^Actions/ }).click();
    await row(page, /destructive/).first().click();
    await page.getByRole("button", { name: "Approve…" }).click();
    await page.getByLabel("Reason").fill("no other way");
    await page.getByLabel("Your password").fill("wrong password here");
    await page.getByRole("dialog").getByRole("button", { name: /^Approve/ }).first().click();
    await page.getByRole("dialog").getByRole("alert").filter({ hasText: /./ }).waitFor();
    await page.getByLabel("Your password").fill(PASSWORD);
    // after a wrong one the service makes everybody wait a little
    await until("the approval", async () => {
      const button = page.getByRole("dialog").getByRole("button", { name: /^Approve/ }).first();
      if (await button.isEnabled().catch(() => false)) await button.click({ timeout: 1000 }).catch(() => {});
      return (await page.getByRole("dialog").count()) === 0;
    });
  }
  await olga.getByRole("article").getByText("succeeded").first().waitFor();

  // the kill switch is seen by everybody, and nothing runs
  await olga.getByRole("link", { name: /^Health/ }).click();
  await olga.getByRole("button", { name: "Kill switch: stop every action…" }).click();
  await olga.getByLabel("Reason").fill("something is wrong");
  await olga.getByRole("button", { name: "Stop every action", exact: true }).click();
  await olga.getByText("Kill switch on.").waitFor();
  await propose("last");
  await approver.getByRole("link", { name: /^Actions/ }).click();
  await row(approver, /pending/).first().click();
  await approver.getByRole("button", { name: "Approve…" }).click();
  await approver.getByLabel("Reason").fill("let us see");
  await approver.getByRole("button", { name: "Approve and execute" }).click();
  await approver.getByRole("dialog", { name: "It was not started" }).waitFor();
  for (const page of [proposer, approver, olga]) await harmless(page);
});
