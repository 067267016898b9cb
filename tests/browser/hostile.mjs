// Hostile texts as titles, descriptions, labels, log lines, names of metrics and notes, sent as anybody would send
// them: they are shown, and they do nothing.

import assert from "node:assert/strict";
import { corpus, harmful } from "./corpus.mjs";
import { api, base, harmless, loggedIn, PASSWORD, picture, story, tab, token, until } from "./lib.mjs";

/** What on the page could only come from markup in a text. */
function strange() {
  const known = "A ABBR ARTICLE B BDI BUTTON CODE DD DETAILS DIALOG DIV DL DT FORM H1 H2 H3 H4 HEADER INPUT KBD LABEL LI MAIN MARK METER NAV OL OPTION P PRE SECTION SELECT SPAN STRONG SUMMARY TEXTAREA TIME UL".split(" ");
  const found = [];
  for (const element of document.body.querySelectorAll("#app *, dialog *")) {
    if (!known.includes(element.tagName)) found.push(element.outerHTML.slice(0, 80));
    for (const { name, value } of element.attributes) {
      if (value && /^on|^style$|^src|^action$|^formaction$|^ping$|^target$/.test(name)) found.push(`${element.tagName} ${name}=${value}`);
      if (name === "href" && !/^(#|\/api\/)/.test(value)) found.push(`${element.tagName} href=${value}`);
    }
  }
  return found;
}

/** Sees that the guards would notice, on a page that holds nothing back. */
async function guardsWork() {
  const page = await tab();
  await page.setContent("<p></p>");
  await page.evaluate((texts) => { document.querySelector("p").innerHTML = texts.join(""); }, harmful);
  await until("the guards", () => page.guard.seen.some((one) => one.startsWith("a dialog")) && page.guard.seen.some((one) => one.startsWith("a request")));
  await page.context().close();
}

await story(async () => {
  await guardsWork();
  const admin = await token("admin");

  const send = async (events) => {
    const answer = await api(admin, "POST", "/api/events", events);
    assert.deepEqual(answer.rejected, [], "every text is taken");
  };
  for (let from = 0; from < corpus.length; from += 50) {
    const part = corpus.slice(from, from + 50);
    // an alert of its own for each, and fifty log lines to an incident
    await send(part.map((text, i) => ({
      kind: "alert", source: text.slice(0, 200), name: `hostile-${from + i}`, title: text, description: text, severity: "error",
      labels: { place: text.slice(0, 900), ...(text.length <= 100 ? { [text]: "as a name" } : {}) },
    })));
    await send(part.map((text) => ({ source: `log-${from}`, message: `hostile ${text}` })));
  }
  const incidents = await until("every incident", async () => {
    const found = [];
    for (let cursor = ""; cursor !== null;) {
      const page = await api(admin, "GET", `/api/incidents?limit=500${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
      found.push(...page.items);
      cursor = page.next_cursor;
    }
    const carries = found.some((incident) => incident.evidence_count > 45);
    return carries && found.length >= corpus.length + Math.ceil(corpus.length / 50) ? found : null;
  });
  const carrier = incidents.find((incident) => incident.evidence_count > 45);
  for (const text of corpus.filter((one) => one.trim())) await api(admin, "POST", `/api/incidents/${carrier.id}/notes`, { text });
  await api(admin, "POST", `/api/incidents/${carrier.id}/resolve`, { resolution: corpus[0] });
  await api(admin, "POST", `/api/incidents/${carrier.id}/reopen`);

  const page = await loggedIn("admin");
  await page.locator("[data-row]").first().waitFor();
  assert.deepEqual(await page.evaluate(strange), [], "in the list");
  await picture(page, "hostile-list");

  // a few tabs side by side, as each mostly waits for the service
  const rest = [...incidents];
  const visit = async (page) => {
    let seen = 0;
    for (let incident = rest.pop(); incident; incident = rest.pop()) {
      await page.evaluate((id) => { location.hash = `#/incidents/${encodeURIComponent(id)}`; }, incident.id);
      await page.waitForFunction((id) => document.querySelector("article code")?.textContent === id && document.querySelector(".timeline"), incident.id, { polling: 20 });
      assert.deepEqual(await page.evaluate(strange), [], incident.title);
      const shown = await page.locator("#incident-title").textContent();
      // what would not be seen is named; everything else stands there as it was sent
      if (/^[\x20-\x7e]*$/.test(incident.title)) assert.equal(shown, incident.title);
      assert.ok(!/[\u0000-\u0008\u000b-\u001f\u202a-\u202e\u2066-\u2069\u200b]/.test(shown), `hidden characters are shown as such: ${JSON.stringify(shown)}`);
      assert.deepEqual(page.guard.seen, [], incident.title);
      seen += 1;
    }
    return seen;
  };
  const tabs = [page, await loggedIn("admin"), await loggedIn("admin"), await loggedIn("admin")];
  const seen = (await Promise.all(tabs.map(visit))).reduce((sum, one) => sum + one);
  assert.equal(seen, incidents.length);
  for (const one of tabs) await harmless(one);

  assert.equal(await page.title().then((title) => title.includes("pwned")), false);

  // the evidence and the timeline of the one that carries most
  await page.evaluate((id) => { location.hash = `#/incidents/${encodeURIComponent(id)}`; }, carrier.id);
  await page.locator(".piece").nth(40).waitFor();
  const lines = await page.locator(".timeline li").count();
  assert.ok(lines > 200, `${lines} lines of the timeline`);
  await page.getByText("Why this incident: every decision").click();
  await page.waitForFunction(() => document.querySelectorAll("details[data-key=why] li").length > 0);
  assert.deepEqual(await page.evaluate(strange), []);
  await picture(page, "hostile-incident");

  // the queue of actions: titles, parameters, reasons, elements of a command
  const proposed = corpus.filter((text, i) => i % 6 === 0 && text.length <= 250 && /^[^\p{C}\p{M}]+$/u.test(text));
  for (const text of proposed) {
    await api(admin, "POST", `/api/incidents/${incidents[0].id}/proposals`, { action: "say", params: { words: text }, reasoning: text }, 201);
  }
  await page.getByRole("link", { name: /^Actions/ }).click();
  const waiting = (await api(admin, "GET", "/api/approvals?status=pending&limit=500")).items;
  assert.equal(waiting.length, proposed.length);
  await page.locator("[data-row]").nth(waiting.length - 1).waitFor();
  assert.deepEqual(await page.evaluate(strange), [], "in the queue");
  for (const approval of waiting) {
    await page.evaluate((id) => { location.hash = `#/approvals/${id}`; }, approval.id);
    await page.waitForFunction((id) => document.querySelector("article code")?.textContent === id, approval.id, { polling: 20 });
    assert.deepEqual(await page.evaluate(strange), [], approval.title);
    assert.equal(await page.locator(".good", { hasText: "the same digest" }).count(), 1, approval.title);
    assert.deepEqual(page.guard.seen, [], approval.title);
  }
  await page.getByRole("link", { name: "Incidents", exact: true }).click();
  await page.evaluate((id) => { location.hash = `#/incidents/${encodeURIComponent(id)}`; }, carrier.id);
  await page.locator(".piece").nth(40).waitFor();

  // hostile texts typed into the page, and hostile addresses
  for (const text of harmful) {
    await page.getByLabel("Words").fill(text);
    await page.getByRole("button", { name: "Note" }).click();
    await page.getByLabel("Text").fill(text);
    await page.getByRole("button", { name: "Write it down" }).click();
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await page.evaluate((place) => { location.hash = `#/incidents/${place}`; }, encodeURIComponent(text));
    await page.getByText("There is no such incident.").waitFor();
    await page.evaluate((place) => { location.hash = place; }, `#/${text}/%`);
    await page.evaluate((id) => { location.hash = `#/incidents/${encodeURIComponent(id)}`; }, carrier.id);
    await page.getByRole("button", { name: "Note" }).waitFor();
  }

  // and a log-in
  const stranger = await tab();
  await stranger.goto(`${base}/#/${harmful[0]}`);
  await stranger.getByLabel("Name").fill(harmful[0]);
  await stranger.getByLabel("Password").fill(PASSWORD);
  await stranger.getByRole("button", { name: "Log in" }).click();
  await stranger.getByRole("alert").filter({ hasText: "wrong name or password" }).waitFor();
  await harmless(stranger);

  await page.evaluate(() => new Promise((resolve) => { setTimeout(resolve, 0); }));
  await harmless(page);
  console.log(`${corpus.length} hostile texts, ${seen} incidents opened, ${lines} lines of a timeline, ${waiting.length} proposals: no script, no request, no violation`);
});
