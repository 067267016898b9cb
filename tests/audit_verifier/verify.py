#!/usr/bin/env python3
"""A second verifier of OpsPilot's audit log, written from the description of the format and sharing nothing with the first.

    verify.py EXPORT [--key VKEY]... [--since NOTE]...      0 as written, 1 tampered with, 2 cannot be said, 3 with deletions
    verify.py --proof FILE [--key VKEY]...
    verify.py --batch CASES.json                            one line "code first_bad" for each case

Needs Python 3.9 and the package `cryptography`, which checks the Ed25519 signatures.
"""
import base64, hashlib, json, re, sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def sha(*parts): return hashlib.sha256(b"".join(parts)).digest()
def node(left, right): return sha(b"\x01", left, right)


def b64(text):
    raw = base64.b64decode(text, validate=True)
    if base64.b64encode(raw).decode() != text: raise ValueError("not the one base64 of it")
    return raw


def unhex(text):
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-f]{64}", text): raise ValueError("not 32 bytes in hex")
    return bytes.fromhex(text)


class Note:
    def __init__(self, text):
        if any(ord(c) < 32 and c != "\n" for c in text) or len(text.encode()) > 16384: raise ValueError("not a note")
        body, gap, lines = text.rpartition("\n\n")
        if not gap or not lines.endswith("\n"): raise ValueError("no signatures")
        self.text = (body + "\n").encode()
        self.origin, size, root = body.split("\n")
        if not self.origin or not re.fullmatch(r"0|[1-9][0-9]*", size, re.ASCII) or int(size) >= 2**64: raise ValueError("size")
        self.size, self.root = int(size), b64(root)
        if len(self.root) != 32: raise ValueError("root")
        self.signatures = []
        for line in lines[:-1].split("\n"):
            dash, name, signature = line.split(" ")
            signature = b64(signature)
            if dash != "\u2014" or not name or "+" in name or len(name.split()) != 1 or len(signature) <= 4: raise ValueError("signature")
            self.signatures.append((name, signature[:4], signature[4:]))

    def signed_by(self, name, key):
        mark = sha(name.encode(), b"\n\x01", key)[:4]
        for signature in [s for n, h, s in self.signatures if n == name and h == mark][:1]:
            try: Ed25519PublicKey.from_public_bytes(key).verify(signature, self.text); return True
            except (InvalidSignature, ValueError): return False
        return False


def vkey(text):
    name, mark, key = text.split("+", 2)
    key = b64(key)
    if key[0] != 1 or len(key) != 33 or sha(name.encode(), b"\n", key)[:4].hex() != mark: raise ValueError("not a public key")
    return name, key[1:]


def root_of(peaks):
    if not peaks: return sha(b"")
    root = peaks[-1][1]
    for _, left in reversed(peaks[:-1]): root = node(left, root)
    return root


def once(pairs):
    if len({name for name, _ in pairs}) != len(pairs): raise ValueError("a member twice")
    return dict(pairs)


SHAPE = {"v": int, "seq": int, "ts": str, "node": str, "boot": str, "code": str, "actor": dict, "obj": dict, "outcome": str,
         "req": (str, type(None)), "commit": str, "prev": str}


def leaf_of(text):
    leaf = json.loads(text, object_pairs_hook=once)
    if set(leaf) != set(SHAPE) or not all(isinstance(leaf[n], t) and not isinstance(leaf[n], bool) for n, t in SHAPE.items()): raise ValueError
    for part, names in (("actor", {"t", "id", "via"}), ("obj", {"t", "id"})):
        if set(leaf[part]) != names or not all(isinstance(v, str) for v in leaf[part].values()): raise ValueError
    if leaf["v"] != 1: raise ValueError("version")
    return leaf


class Log:
    def __init__(self, origin, keys, held):
        self.origin, self.bad, self.unsure = origin, [], False
        self.keys = [key for name, key in keys if name == origin]
        self.held = [note for note in held if note.origin == origin]
        self.unsure = len(self.keys) != len(keys) or len(self.held) != len(held)
        self.size, self.peaks, self.prev, self.broken, self.good = 0, [], bytes(32), False, 0
        self.notes, self.announced, self.events, self.bare, self.gone = {}, [], [], [], []
        self.approved, self.used, self.tokens, self.started = {}, set(), set(), set()
        self.meet()

    def meet(self):
        if not self.broken and any(n.size == self.size and n.root != root_of(self.peaks) for n in self.held):
            self.bad.append(min(self.good + 1, self.size))

    def entry(self, seq, leaf, stored, salt, body):
        expected, computed, facts, wrong = self.size + 1, sha(b"\x00", leaf.encode()), None, False
        try:
            if stored != computed: raise ValueError("leaf")
            facts = leaf_of(leaf)
            prev = unhex(facts["prev"])
            if facts["seq"] != seq: raise ValueError("number")
            if salt is not None and unhex(facts["commit"]) != sha(b"\x02", salt, body.encode()): raise ValueError("payload")
            said = self.said(facts["code"], facts["obj"], body)
        except (ValueError, KeyError, TypeError, RecursionError): wrong = True
        if seq != expected or wrong or prev != self.prev:
            self.broken = True
            self.bad.append(expected)
        self.prev = computed
        if not wrong: self.heed(expected, *said)
        if salt is None: self.bare.append(expected)
        self.size += 1
        self.peaks.append((0, computed))
        while len(self.peaks) > 1 and self.peaks[-1][0] == self.peaks[-2][0]:
            (level, right), (_, left) = self.peaks.pop(), self.peaks.pop()
            self.peaks.append((level + 1, node(left, right)))
        self.meet()

    def said(self, code, obj, body):
        def details():
            value = json.loads(body)
            return value if isinstance(value, dict) else {}
        if code in ("SGN01I", "SGN02I", "SGN03W"):
            value = details()
            return (code, unhex(value.get("public"))) if value.get("purpose") == "audit" else ("", None)
        if code in ("RED01I", "RET01I") and obj["t"] == "audit":
            numbers = obj["id"].split("-", 1)
            if not all(re.fullmatch(r"[0-9]+", n, re.ASCII) and int(n) < 2**64 for n in numbers): raise ValueError("range")
            return code, (int(numbers[0]), int(numbers[-1]))
        if code == "EXE01I":
            value = details()
            found = value.get("approval"), value.get("jti_sha256"), value.get("plan")
            if not all(isinstance(text, str) for text in found): raise ValueError("execution")
            return code, (obj["id"], *found)
        if code == "APR01I":
            if not isinstance(plan := details().get("plan"), str): raise ValueError("approval")
            return code, (obj["id"], plan)
        if code == "PRO01I" and body is not None:
            value = details()
            if isinstance(words := value.get("plan_text"), str) and value.get("plan") != "sha256:" + sha(words.encode()).hex(): raise ValueError("plan")
        if code == "RES01I" and body is not None: json.loads(body)
        return code, obj["id"]

    def heed(self, seq, code, what):
        if code == "CHK01I": self.announced.append(seq)
        elif code in ("SGN01I", "SGN02I", "SGN03W"): self.events.append((seq, what, code == "SGN01I"))
        elif code in ("RED01I", "RET01I") and isinstance(what, tuple): self.gone.append(what)
        elif code == "APR01I": self.approved[what[0]] = what[1]
        elif code == "EXE01I":
            execution, approval, token, plan = what
            if self.approved.get(approval) != plan or approval in self.used or token in self.tokens or execution in self.started: self.bad.append(seq)
            self.used.add(approval); self.tokens.add(token); self.started.add(execution)
        elif code in ("EXE02I", "EXE02E") and what not in self.started: self.bad.append(seq)

    def checkpoint(self, note):
        start = self.good + 1
        if note.size != self.size: self.bad.append(self.size + 1); return
        if self.broken: return
        if note.root != root_of(self.peaks): self.broken = True; self.bad.append(start); return
        self.good = note.size
        if note.origin != self.origin or note.size in self.notes: self.bad.append(start)
        self.notes[note.size] = note

    def finish(self):
        if any(note.size > self.size for note in self.held): self.bad.append(self.size + 1)
        for seq in self.bare:
            if not any(first <= seq <= last for first, last in self.gone): self.bad.append(seq)
        if self.keys:
            signed = {}
            while True:
                for size, note in self.notes.items():
                    for key in self.keys:
                        if size not in signed and note.signed_by(self.origin, key): signed[size] = key
                covered = max(signed, default=0)
                more = [key for seq, key, used in self.events if used and seq <= covered and key not in self.keys]
                if not more: break
                self.keys += dict.fromkeys(more)
            sizes = sorted(self.notes)
            for before, size in zip([0] + sizes, sizes):
                if size not in signed: self.bad.append(before + 1)
            for seq, key, used in self.events:
                if not used and any(by == key and size >= seq for size, by in signed.items()): self.bad.append(seq)
            if any(not any(note.signed_by(self.origin, key) for key in self.keys) for note in self.held): self.unsure = True
        else: self.unsure = True
        newest = max(self.notes, default=0)
        if not self.broken: self.bad += [seq for seq in self.announced if seq <= newest and seq not in self.notes]
        if self.size and not self.notes: self.unsure = True
        if self.bad: return 1, min(self.bad)
        return (2 if self.unsure else 3 if self.bare else 0), None


def line_of(raw, names):
    """A line in the one form it can have."""
    value = json.loads(raw.decode(), object_pairs_hook=once)
    if not isinstance(value, dict) or list(value) != names: return None
    return value if json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() == raw else None


def verify_export(data, keys, since):
    lines = data.split(b"\n")
    try:
        head = line_of(lines[0], ["format", "origin", "size", "key"])
        if len(lines) < 2 or head["format"] != "opspilot-audit-1" or type(head["size"]) is not int: return 2, None
        if not keys and head["key"] is not None: keys = [head["key"]]
        log = Log(head["origin"], [vkey(key) for key in keys], [Note(text) for text in since])
    except (ValueError, TypeError, KeyError, IndexError): return 2, None
    for raw in lines[1:-1]:
        try:
            if (row := line_of(raw, ["seq", "leaf", "hash", "salt", "body"])) and type(row["seq"]) is int and row["seq"] >= 0 and isinstance(row["leaf"], str):
                try:
                    stored, salt = unhex(row["hash"]), None if row["salt"] is None else unhex(row["salt"])
                    if (salt is None) != (row["body"] is None): raise ValueError
                except ValueError: stored, salt = b"", None; log.bad.append(log.size + 1)
                log.entry(row["seq"], row["leaf"], stored, salt, row["body"])
            else: log.checkpoint(Note(line_of(raw, ["checkpoint"])["checkpoint"]))
        except (ValueError, TypeError, KeyError, AttributeError): log.bad.append(log.size + 1)
    if lines[-1]: log.bad.append(log.size + 1)
    if log.size != head["size"]: log.bad.append(min(log.size, head["size"]) + 1)
    return log.finish()


def verify_proof(data, keys):
    try:
        proof = json.loads(data.decode(), object_pairs_hook=once)
        if set(proof) != {"format", "seq", "leaf", "salt", "body", "path", "checkpoint", "key"} or proof["format"] != "opspilot-proof-1": return 2, None
        note, seq = Note(proof["checkpoint"]), proof["seq"]
        if type(seq) is not int or seq < 0 or not isinstance(proof["leaf"], str): return 2, None
        if not all(isinstance(step, str) for step in proof["path"]): return 2, None
        keys = [vkey(key) for key in keys or ([proof["key"]] if proof["key"] else [])]
    except (ValueError, TypeError, KeyError): return 2, None
    try:
        salt = None if proof["salt"] is None else unhex(proof["salt"])
        if (salt is None) != (proof["body"] is None) or len(proof["path"]) > 64: return 1, seq
        if salt is not None:
            facts = leaf_of(proof["leaf"])
            if facts["seq"] != seq or unhex(facts["commit"]) != sha(b"\x02", salt, proof["body"].encode()): return 1, seq
        place, last, root = seq - 1, note.size - 1, sha(b"\x00", proof["leaf"].encode())
        if not 0 <= place <= last: return 1, seq
        for step in map(unhex, proof["path"]):
            if last == 0: return 1, seq
            if place & 1 or place == last:
                root = node(step, root)
                while not place & 1 and place: place, last = place >> 1, last >> 1
            else: root = node(root, step)
            place, last = place >> 1, last >> 1
        if last or root != note.root: return 1, seq
    except (ValueError, TypeError, KeyError): return 1, seq
    keys = [key for name, key in keys if name == note.origin]
    if not keys: return 2, None
    if not any(note.signed_by(note.origin, key) for key in keys): return 1, seq
    return (0 if salt is not None else 3), None


def main(args):
    if args[:1] == ["--batch"]:
        for case in json.load(open(args[1])):
            data = open(case["file"], "rb").read()
            code, bad = verify_proof(data, case["keys"]) if case["proof"] else verify_export(data, case["keys"], case["since"])
            print(code, "-" if bad is None else bad)
        return 0
    options = {"--key": [], "--since": [], "--proof": []}
    files = []
    while args:
        word = args.pop(0)
        options[word].append(args.pop(0)) if word in options else files.append(word)
    keys = [open(key).read().strip() if "+" not in key else key for key in options["--key"]]
    if options["--proof"]: code, bad = verify_proof(open(options["--proof"][0], "rb").read(), keys)
    else: code, bad = verify_export(open(files[0], "rb").read(), keys, [open(note).read() for note in options["--since"]])
    print(["as it was written", f"tampered with, first at entry {bad}", "cannot be said", "as it was written, with deletions on record"][code])
    return code


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
