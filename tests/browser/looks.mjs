// A phone, a large screen, dark and light: nothing is cut off, nothing is too small, and every text can be read.

import assert from "node:assert/strict";
import { alert, api, harmless, loggedIn, picture, row, story, token, until } from "./lib.mjs";

/** Texts whose contrast is below what WCAG AA asks for. */
function pale() {
  const numbers = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)).reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || element.closest(".unseen, .skip, noscript")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(numbers(style.color)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)}: ${walker.currentNode.textContent.trim().slice(0, 40)}`);
  }
  return found;
}

/** What a finger would miss. */
function small() {
  const targets = [...document.querySelectorAll("a, button, input, select, textarea, summary")].filter((element) => element.checkVisibility() && !element.closest("p.quiet, .notice, .skip, dd"));
  return targets.map((element) => [element.getBoundingClientRect(), element]).filter(([box]) => box.width > 0 && (box.width < 24 || box.height < 24)).map(([box, element]) => `${element.textContent.slice(0, 30)} ${box.width}×${box.height}`);
}

await story(async () => {
  const admin = await token("admin");
  await alert(admin, { name: "long", title: "Payments failing on a host with a very long name: db-replica-eu-central-1-000000000000000000000000000000000000000000000017.example.internal", labels: { service: "checkout", revision: "a".repeat(200) }, description: "ten orders in a row were refused by the provider" });
  await alert(admin, { name: "warn", title: "A warning", severity: "warning" });
  await alert(admin, { name: "info", title: "Only so that somebody knows", severity: "info" });

  const incident = await until("the incident", async () => (await api(admin, "GET", "/api/incidents?q=payments")).items[0]);
  for (const [action, params] of [["say", { words: `it's ${"very ".repeat(40)}long; $(and) \u0430 little odd` }], ["destroy", {}]]) {
    await api(admin, "POST", `/api/incidents/${incident.id}/proposals`, { action, params, reasoning: "it helped the last time" }, 201);
  }

  const sizes = { phone: { viewport: { width: 360, height: 740 }, hasTouch: true }, desk: { viewport: { width: 1400, height: 900 } } };
  for (const [size, options] of Object.entries(sizes)) {
    for (const colorScheme of ["dark", "light"]) {
      const page = await loggedIn("admin", { ...options, colorScheme, reducedMotion: "reduce" });
      const look = async (name) => {
        const told = `${name}, ${size}, ${colorScheme}`;
        const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
        assert.ok(wide <= room, `${told}: it is ${wide} wide where ${room} are`);
        assert.deepEqual(await page.evaluate(pale), [], told);
        assert.deepEqual(await page.evaluate(small), [], told);
        await picture(page, `${name}-${size}-${colorScheme}`);
      };
      await row(page, "Payments failing").waitFor();
      await look("list");
      const moving = await page.evaluate(() => [...document.querySelectorAll("*")].filter((element) => parseFloat(getComputedStyle(element).transitionDuration) > 0 || getComputedStyle(element).animationName !== "none").length);
      assert.equal(moving, 0, "nothing moves for who asked for that");
      await row(page, "Payments failing").click();
      await page.getByRole("heading", { name: "Timeline" }).waitFor();
      await look("incident");
      if (size === "phone") assert.equal(await page.locator("[data-row]:visible").count(), 0, "the detail has the screen to itself");
      await page.getByRole("button", { name: "Snooze" }).click();
      await page.getByRole("dialog").waitFor();
      await look("dialog");
      await page.keyboard.press("Escape");
      if (size === "phone") await page.getByRole("link", { name: "← Incidents" }).click();
      await page.getByRole("link", { name: /^Actions/ }).click();
      await page.getByRole("region", { name: "Actions" }).waitFor();
      await look("actions");
      await row(page, "Say it's").click();
      await page.getByRole("heading", { name: "Digest" }).waitFor();
      await look("approval");
      await page.getByRole("link", { name: /^Health/ }).click();
      await page.getByText("detector.regex").waitFor();
      await look("health");
      await harmless(page);
      await page.context().close();
    }
  }
});
