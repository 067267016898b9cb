// What the page computes for itself: digests, canonical JSON, and command lines that can be read in one way only.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { corpus } from "./corpus.mjs";

const page = async (name) => import(`data:text/javascript,${encodeURIComponent(readFileSync(new URL(`../../src/http/dashboard/page/${name}`, import.meta.url), "utf8"))}`);
const { canonical, digestOf, sha256 } = await page("sha256.js");
const { commandLine, exactPieces, left, mayHaveStarted, pieces } = await page("words.js");

// a generator that gives the same numbers every time
let seed = 42;
const random = (below) => {
  seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
  return Math.floor((seed / 2 ** 32) * below);
};

for (let length = 0; length < 400; length += 1) {
  const bytes = Uint8Array.from({ length }, () => random(256));
  assert.equal(sha256(bytes), createHash("sha256").update(bytes).digest("hex"), `${length} bytes`);
}

assert.equal(canonical({ b: [1, null, true], a: "é\u2028\"\\", aa: {}, "\u20ac": -1 }), '{"a":"é\u2028\\"\\\\","aa":{},"b":[1,null,true],"€":-1}');
assert.equal(canonical({ "\ufb33": 1, "\ud83d\ude00": 2 }), '{"\ud83d\ude00":2,"\ufb33":1}', "keys stand in the order of their UTF-16 units");
assert.equal(digestOf({ v: 1 }), `sha256:${createHash("sha256").update('{"v":1}').digest("hex")}`);

// a shell that reads the command line gets exactly the elements: so it was quoted well
const letters = ["a", "Z", "0", " ", "'", '"', "\\", "$", "`", "!", "*", "?", "~", "#", "&", "|", ";", "<", ">", "(", ")", "{", "}", "[", "]", "=", "%", "-", "\n", "\t", "\u001b", "é", "\u202e", "\ud83d\ude00", "\u007f", "\r"];
const elements = [...corpus.filter((text) => !text.includes("\0")), ...Array.from({ length: 400 }, () => Array.from({ length: random(12) }, () => letters[random(letters.length)]).join(""))];
for (let from = 0; from < elements.length; from += 40) {
  const argv = elements.slice(from, from + 40);
  const line = commandLine(argv);
  assert.match(line, /^[\x20-\x7e]*$/, "everything in it can be seen");
  const read = execFileSync("bash", ["--norc", "--noprofile", "-c", `printf '%s\\0' ${line}`], { encoding: "utf8", env: { LC_ALL: "C.UTF-8" } });
  assert.deepEqual(read.split("\0").slice(0, -1), argv);
}

// what is shown of a text leaves nothing out, and shows nothing hidden
for (const text of elements) {
  for (const cut of [pieces, exactPieces]) {
    assert.equal(cut(text).map((part) => part.text ?? part.of).join(""), text);
    assert.ok(cut(text).every((part) => !/[\u0000-\u0008\u202a-\u202e\u2066-\u2069\u200b\u200e\u200f\ufeff]/.test(part.text ?? "")));
  }
  assert.ok(exactPieces(text).every((part) => /^[\x20-\x7e]*$/.test(part.text ?? "")), "in what will run, all that is not plain is named");
}

assert.equal(left("2026-01-01T00:00:00Z", Date.parse("2025-12-31T23:58:55Z")), "1:05");
assert.equal(left("2026-01-01T00:00:00Z", Date.parse("2025-12-31T22:00:00Z")), "2:00:00");
assert.equal(left("2026-01-01T00:00:00Z", Date.parse("2026-01-01T00:00:00Z")), "time is up");

// only a refusal says for certain that nothing was started
for (const [status, code] of [[401, "bad_token"], [409, "target_busy"], [410, "token_expired"], [429, "slow_down"], [503, "clock_regression"], [503, "no_executor"]]) {
  assert.ok(!mayHaveStarted({ status, code }), `${status} ${code}`);
}
for (const [status, code] of [[0, "unreachable"], [500, "internal"], [502, ""], [503, "unavailable"], [202, "strange"], [undefined, undefined]]) {
  assert.ok(mayHaveStarted({ status, code }), `${status} ${code}`);
}
