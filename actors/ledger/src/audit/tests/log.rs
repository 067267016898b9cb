//! Logs that a test makes up, in memory: what was said, rendered by the same code that writes real leaves. A forger says
//! something else and renders it again.

use opspilot_kernel::{principal::Actor, time::Timestamp};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    audit::{
        note::{Checkpoint, PublicKey, SignedNote, origin_of},
        tree::{Frontier, leaf_hash},
    },
    keyfile::{KeyFile, KeyPurpose},
    tables::audit::{AuditEntry, Object, Place, commitment, leaf},
};

/// Something in a log.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// An entry, and whether its payload is still there.
    Entry { code: &'static str, object: (&'static str, String), body: Value, whole: bool },
    /// A checkpoint with its entry, signed by this key.
    Checkpoint(u8),
}

pub(super) fn entry(code: &'static str, kind: &'static str, id: impl Into<String>, body: Value) -> Item {
    Item::Entry { code, object: (kind, id.into()), body, whole: true }
}

pub(super) fn key(number: u8) -> KeyFile {
    KeyFile::from_seed(KeyPurpose::Audit, std::array::from_fn(|byte| number.wrapping_mul(31) ^ u8::try_from(byte).unwrap()))
}

pub(super) fn origin() -> String {
    origin_of("00112233445566778899aabbccddeeff")
}

pub(super) fn public(number: u8) -> PublicKey {
    PublicKey::of(&origin(), &key(number))
}

pub(super) fn key_entry(code: &'static str, number: u8) -> Item {
    let key = key(number);
    entry(code, "key", key.kid(), json!({ "purpose": "audit", "public": hex::encode(key.public()), "reason": "test" }))
}

/// A log as an export has it, line by line.
#[derive(Debug, Clone)]
pub(super) struct Rendered {
    pub(super) lines: Vec<String>,
    pub(super) notes: Vec<SignedNote>,
}

impl Rendered {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()
    }

    /// The line in which each entry stands.
    pub(super) fn entries(&self) -> Vec<usize> {
        (0..self.lines.len()).filter(|line| self.lines[*line].starts_with("{\"seq\"")).collect()
    }
}

/// Renders a log. `dice` gives the salts.
pub(super) fn render(items: &[Item], seed: u64) -> Rendered {
    let mut dice = StdRng::seed_from_u64(seed);
    let (mut tree, mut prev) = (Frontier::default(), [0; 32]);
    let mut rendered = Rendered { lines: vec![String::new()], notes: Vec::new() };
    for item in items {
        let (code, object, body, whole) = match item {
            Item::Entry { code, object, body, whole } => (*code, object.clone(), body.clone(), *whole),
            Item::Checkpoint(by) => ("CHK01I", ("key", key(*by).kid()), json!({ "reason": "interval" }), true),
        };
        let salt: [u8; 32] = dice.random();
        let body = opspilot_kernel::canonical::canonical(&body).unwrap();
        let seq = tree.size() + 1;
        let entry = AuditEntry {
            code,
            actor: Actor::User { id: "ada".to_owned(), via: "cli".to_owned() },
            object: Object::new(object.0, object.1),
            request: (seq % 3 == 0).then(|| format!("req-{seq}")),
            ..AuditEntry::default()
        };
        let now = Timestamp::from_millis(1_795_348_800_000 + i64::try_from(seq).unwrap() * 250);
        let place = Place { seq, now, node: "local", boot: "00ff", prev: &prev };
        let leaf = leaf(&place, &entry, &commitment(&salt, &body)).unwrap();
        prev = leaf_hash(&leaf);
        tree.push(prev, |_, _, _| {});
        let line = json!({
            "seq": seq, "leaf": String::from_utf8(leaf).unwrap(), "hash": hex::encode(prev),
            "salt": whole.then(|| hex::encode(salt)), "body": whole.then(|| String::from_utf8(body).unwrap()),
        });
        rendered.lines.push(ordered(&line, &["seq", "leaf", "hash", "salt", "body"]));
        if let Item::Checkpoint(by) = item {
            let note = Checkpoint { origin: origin(), size: tree.size(), root: tree.root() }.sign(&key(*by));
            rendered.lines.push(checkpoint_line(&note));
            rendered.notes.push(note);
        }
    }
    rendered.lines[0] = head_line(tree.size(), Some(&public(0)));
    rendered
}

pub(super) fn head_line(size: u64, key: Option<&PublicKey>) -> String {
    let head = json!({ "format": "opspilot-audit-1", "origin": origin(), "size": size, "key": key.map(ToString::to_string) });
    ordered(&head, &["format", "origin", "size", "key"])
}

pub(super) fn checkpoint_line(note: &SignedNote) -> String {
    json!({ "checkpoint": note.text() }).to_string()
}

/// An object with its members in this order.
fn ordered(value: &Value, names: &[&str]) -> String {
    let members: Vec<String> = names.iter().map(|name| format!("{}:{}", json!(name), value[name])).collect();
    format!("{{{}}}", members.join(","))
}

/// The body of a proposal whose digest is that of `words`, and that says it is `said`.
pub(super) fn proposed(words: &str, said: &str) -> Value {
    json!({ "plan": opspilot_kernel::plan::PlanDigest::of(words.as_bytes()), "plan_text": said })
}

/// An ordinary log of some length: accounts, modules, an approved action now and then, a checkpoint every so often.
pub(super) fn ordinary(dice: &mut StdRng, length: usize) -> Vec<Item> {
    let mut items = vec![key_entry("SGN01I", 0)];
    let mut running: Vec<String> = Vec::new();
    let mut signing = 0;
    while items.len() < length {
        let n = items.len();
        match dice.random_range(0..20) {
            0..=3 => items.push(Item::Checkpoint(signing)),
            4..=6 if n + 2 < length => {
                let (approval, execution) = (format!("apr_{n}"), format!("exe_{n}"));
                items.push(entry("APR01I", "approval", approval.as_str(), json!({ "plan": format!("sha256:{:02}", n % 3) })));
                items.push(entry(
                    "EXE01I",
                    "execution",
                    execution.as_str(),
                    json!({ "approval": approval, "jti_sha256": format!("{n:064x}"), "plan": format!("sha256:{:02}", n % 3) }),
                ));
                running.push(execution);
            }
            11 => {
                let words = json!({ "action": "restart", "n": n }).to_string();
                items.push(entry("PRO01I", "approval", format!("apr_{n}"), proposed(&words, &words)));
            }
            7..=8 if !running.is_empty() => {
                let ended = running.swap_remove(dice.random_range(0..running.len()));
                let code = if dice.random() { "EXE02I" } else { "EXE02E" };
                items.push(entry(code, "execution", ended, json!({ "status": "succeeded" })));
            }
            9 if n > 4 && signing == 0 && n + 4 < length => {
                items.push(key_entry("SGN01I", 1));
                items.push(Item::Checkpoint(0));
                items.push(key_entry("SGN02I", 0));
                signing = 1;
            }
            10 if n > 4 => {
                let open = |(_, item): &(usize, &Item)| matches!(item, Item::Entry { code: "MOD01I", whole: true, .. });
                let place = items.iter().enumerate().filter(open).map(|(place, _)| place).next();
                if let Some(place) = place {
                    if let Item::Entry { whole, .. } = &mut items[place] {
                        *whole = false;
                    }
                    items.push(entry("RED01I", "audit", (place + 1).to_string(), json!({ "reason": "asked for" })));
                }
            }
            _ => {
                let text = ["ü", "\u{1f600}", "a\nb", "\"", "\\", "\u{7f}", "", "plain"][dice.random_range(0..8)];
                items.push(entry("MOD01I", "module", format!("m{n}{text}"), json!({ "enabled": dice.random::<bool>(), "text": text })));
            }
        }
    }
    items.truncate(length);
    items
}
