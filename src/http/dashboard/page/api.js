// The API, as this page asks it: with the session's cookie, and the proof that this page asks.

const DEADLINE = 20_000;
let csrf = null;
let signedOut = () => {};

/** What the service refused, in its own words. */
export class Problem extends Error {
  constructor(status, code, detail, errors = [], retryAfter = null) {
    super(detail);
    Object.assign(this, { status, code, detail, errors, retryAfter });
  }

  /** For a person. */
  get text() {
    const each = this.errors.map((error) => [error.pointer, error.detail].filter(Boolean).join(" ")).filter((text) => text && !this.detail.includes(text));
    const again = this.retryAfter ? ` Try again in ${this.retryAfter} s.` : "";
    return [this.detail, ...each].join("; ") + (again ? `.${again}` : "");
  }
}

export const prove = (token) => { csrf = token; };
export const whenSignedOut = (listener) => { signedOut = listener; };

/** A number that nobody else has, for `Idempotency-Key`. */
export function unique() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function problemOf(answer) {
  let said = {};
  try {
    said = await answer.json();
  } catch {
    // the status alone has to do
  }
  const detail = said.detail || said.title || `the service answered ${answer.status}`;
  return new Problem(answer.status, said.code || "", detail, Array.isArray(said.errors) ? said.errors : [], Number(answer.headers.get("Retry-After")) || null);
}

export async function call(method, path, body, headers = {}) {
  const unsafe = method !== "GET";
  const options = { method, headers: { Accept: "application/json", ...headers }, credentials: "same-origin", redirect: "error", cache: "no-store", signal: AbortSignal.timeout(DEADLINE) };
  if (unsafe && csrf) options.headers["X-CSRF-Token"] = csrf;
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw new Problem(0, "unreachable", error.name === "TimeoutError" ? "the service did not answer in time" : "the service cannot be reached");
  }
  if (answer.status === 401 && path !== "/api/auth/login" && !headers["X-Approval-Token"]) signedOut();
  // a report of bad health is still a report
  if (!answer.ok && !(path === "/api/health" && answer.status === 503)) throw await problemOf(answer);
  if (answer.status === 204) return null;
  try {
    return await answer.json();
  } catch {
    throw new Problem(answer.status, "strange", "the answer is not understood");
  }
}

const id = encodeURIComponent;
const query = (wanted) => {
  const each = Object.entries(wanted).flatMap(([name, value]) => (Array.isArray(value) ? value.map((one) => [name, one]) : [[name, value]]));
  const given = each.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
};

export const me = () => call("GET", "/api/auth/me");
export const logIn = (username, password) => call("POST", "/api/auth/login", { username, password });
export const logOut = () => call("POST", "/api/auth/logout");

export const incidents = (wanted) => call("GET", `/api/incidents${query(wanted)}`);
export const incidentStats = (wanted) => call("GET", `/api/incidents/stats${query(wanted)}`);
export const incident = (name) => call("GET", `/api/incidents/${id(name)}`);
export const timeline = (name) => call("GET", `/api/incidents/${id(name)}/timeline?limit=500`);
export const explainWhy = (name) => call("GET", `/api/incidents/${id(name)}/explain-why?limit=100`);
/** A document to keep, and a picture: the browser asks for them itself. */
export const postmortem = (name) => `/api/incidents/${id(name)}/postmortem`;
export const chart = (name) => `/api/incidents/${id(name)}/evidence.svg`;
export const act = (name, what, body, key) => call("POST", `/api/incidents/${id(name)}/${what}`, body, key ? { "Idempotency-Key": key } : {});

export const actions = () => call("GET", "/api/actions");
export const approvals = (wanted) => call("GET", `/api/approvals${query(wanted)}`);
export const approval = (name) => call("GET", `/api/approvals/${id(name)}`);
export const decide = (name, what, body) => call("POST", `/api/approvals/${id(name)}/${what}`, body);
export const execute = (name, token) => call("POST", `/api/approvals/${id(name)}/execute`, undefined, { "X-Approval-Token": token });
export const execution = (name) => call("GET", `/api/executions/${id(name)}`);
export const close = (name, outcome, reason) => call("POST", `/api/executions/${id(name)}/close`, { outcome, reason });

export const health = () => call("GET", "/api/health");
export const killSwitch = () => call("GET", "/api/kill-switch");
export const setKillSwitch = (on, reason) => call(on ? "POST" : "DELETE", "/api/kill-switch", { reason });
export const switchModule = (name, to) => call("POST", `/api/modules/${id(name)}/${to}`);
