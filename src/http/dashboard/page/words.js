// How things are written: times, durations, command lines, and characters that must not be drawn as they stand.

// Control characters, and those that turn, join or hide text: a log line could use them to look like another.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb]|[\u{e0000}-\u{e0fff}]/gu;
// In what will run, everything beyond plain ASCII is pointed out.
const BEYOND_ASCII = /[^\x20-\x7e]/gu;

const code = (character) => {
  const point = character.codePointAt(0);
  return point < 0x100 ? `\\x${point.toString(16).padStart(2, "0")}` : `U+${point.toString(16).toUpperCase().padStart(4, "0")}`;
};

function cut(text, pattern, mark) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > from) parts.push({ text: text.slice(from, match.index) });
    parts.push({ mark: mark(match[0]), of: match[0] });
    from = match.index + match[0].length;
  }
  if (from < text.length) parts.push({ text: text.slice(from) });
  return parts;
}

/** Text in pieces; what would not be seen as it is, is named. */
export const pieces = (text) => cut(String(text ?? ""), HIDDEN, code);

/** The same for what will run: letters that only look like others are named too. */
export const exactPieces = (text) =>
  cut(String(text ?? ""), BEYOND_ASCII, (found) => (/[\p{L}\p{N}\p{S}\p{P}]/u.test(found) ? `${found} ${code(found)}` : code(found)));

/** One line of plain text, for titles and what is read aloud. */
export const plain = (text, most = 200) => {
  const line = String(text ?? "").replace(HIDDEN, "").replace(/\s+/gu, " ").trim();
  return line.length > most ? `${line.slice(0, most - 1)}…` : line;
};

const BARE = /^[A-Za-z0-9_@%+=:,./-]+$/;

function quoted(element) {
  if (BARE.test(element)) return element;
  if (/^[\x20-\x7e]*$/.test(element)) return `'${element.replaceAll("'", "'\\''")}'`;
  const bytes = (character) => [...new TextEncoder().encode(character)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
  return `$'${element.replace(/[\\']/g, "\\$&").replace(BEYOND_ASCII, bytes)}'`;
}

/** A command line that can be read in one way only. The service starts no shell; this is for eyes. */
export const commandLine = (argv) => (argv ?? []).map(quoted).join(" ");

export const when = (text) => {
  const at = Date.parse(text);
  return Number.isNaN(at) ? null : at;
};

const pad = (number) => String(number).padStart(2, "0");

/** Local time with seconds; the day only when it is not today. */
export function moment(text, now = Date.now()) {
  const at = when(text);
  if (at === null) return "";
  const date = new Date(at);
  const time = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  if (new Date(now).toDateString() === date.toDateString()) return time;
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${time}`;
}

/** A span of time in its two largest units. */
export function span(millis) {
  const seconds = Math.max(0, Math.floor(millis / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
}

export function ago(text, now = Date.now()) {
  const at = when(text);
  if (at === null) return "";
  const past = now - at;
  if (past < -1500) return `in ${span(-past)}`;
  return past < 5000 ? "just now" : `${span(past)} ago`;
}

/** What is left until then, to the second. */
export function left(text, now = Date.now()) {
  const at = when(text);
  if (at === null) return "";
  const seconds = Math.ceil((at - now) / 1000);
  if (seconds <= 0) return "time is up";
  return seconds >= 3600 ? `${Math.floor(seconds / 3600)}:${pad(Math.floor(seconds / 60) % 60)}:${pad(seconds % 60)}` : `${Math.floor(seconds / 60)}:${pad(seconds % 60)}`;
}

export const number = (value) => (typeof value === "number" ? String(Math.round(value * 1e4) / 1e4) : "");
export const percent = (share) => `${Math.round((Number(share) || 0) * 100)} %`;
export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
export const spaced = (name) => String(name ?? "").replaceAll("_", " ");

/**
 * Whether a start may have happened although this was the answer: only a refusal says for certain that it did not. No
 * answer, one that is not understood, and a failure of the service leave it open.
 */
export const mayHaveStarted = ({ status, code }) => !(status >= 400 && status < 500) && !["clock_regression", "no_executor"].includes(code);
