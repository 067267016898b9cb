// A browser that is watched, and the API as any other client sees it.

import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { chromium } from "playwright-core";

export const base = process.env.OPSPILOT_URL;
export const PASSWORD = process.env.OPSPILOT_PASSWORD;
const PATIENCE = 30_000;
const pictures = process.env.OPSPILOT_PICTURES;

/** Asks the API as somebody; `status` is what it has to answer. */
export async function api(token, method, path, body, status) {
  const headers = { ...(token ? { Authorization: `Bearer ${token}` } : {}), ...(body === undefined ? {} : { "Content-Type": "application/json" }) };
  const answer = await fetch(base + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await answer.text();
  if (status) assert.equal(answer.status, status, `${method} ${path}: ${text}`);
  else assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
  return text ? JSON.parse(text) : null;
}

export const token = async (username) => (await api(null, "POST", "/api/auth/login", { username, password: PASSWORD })).token;

/** An alert from outside; each opens an incident of its own. */
export const alert = (who, fields) => api(who, "POST", "/api/events", { kind: "alert", source: "shop", severity: "critical", ...fields });

/** Asks until it is so. */
export async function until(what, ask) {
  const over = Date.now() + PATIENCE;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    assert.ok(Date.now() < over, `waited in vain for ${what}`);
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
}

/** What must never happen on the page, whatever it shows. */
class Guard {
  constructor(page) {
    this.seen = [];
    page.on("dialog", (dialog) => {
      this.seen.push(`a dialog: ${dialog.message()}`);
      dialog.dismiss().catch(() => {});
    });
    page.on("request", (request) => {
      const { origin, protocol } = new URL(request.url());
      if (origin !== base && protocol !== "about:") this.seen.push(`a request to ${request.url()}`);
    });
    page.on("pageerror", (error) => this.seen.push(`an error: ${error.stack}`));
    page.on("console", (message) => {
      if (/content security policy|trusted/i.test(message.text())) this.seen.push(`the console: ${message.text()}`);
    });
    page.on("popup", (popup) => this.seen.push(`a window: ${popup.url()}`));
  }
}

const running = await chromium.launch({
  executablePath: process.env.PATH.split(":").map((folder) => `${folder}/chromium`).find(existsSync),
  // a container's root has no sandbox; what is tested here is the page, and it comes from us
  args: process.getuid?.() === 0 ? ["--no-sandbox"] : [],
});

const pages = [];

/** A page of its own, with its own cookies. */
export async function tab(options = {}) {
  const context = options.context ?? await running.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB", ...options });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => globalThis.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
  });
  page.guard = new Guard(page);
  pages.push(page);
  return page;
}

/** A tab in which somebody has logged in. */
export async function loggedIn(username, options) {
  const page = await tab(options);
  await page.goto(base);
  await page.getByLabel("Name").fill(username);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByText("live", { exact: true }).waitFor();
  return page;
}

/** Fails if anything happened that must not. */
export async function harmless(page) {
  const violations = await page.evaluate(() => globalThis.violations);
  assert.deepEqual(violations, [], "violations of the content security policy");
  assert.deepEqual(page.guard.seen, [], "what must not happen happened");
}

export const row = (page, title) => page.locator("[data-row]", { hasText: title });

/** Keeps a picture where somebody asked for it. */
export async function picture(page, name) {
  if (!pictures) return;
  mkdirSync(pictures, { recursive: true });
  await page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true });
}

/** Runs a story, and ends the browser however it ends. */
export async function story(tell) {
  try {
    await tell();
  } catch (error) {
    for (const page of pages) {
      console.error(`at ${page.url()}`, page.guard.seen);
      await page.screenshot({ path: `${pictures ?? process.env.TMPDIR ?? "/tmp"}/opspilot-browser-failure-${pages.indexOf(page)}.png` }).catch(() => {});
    }
    throw error;
  } finally {
    await running.close();
  }
}
