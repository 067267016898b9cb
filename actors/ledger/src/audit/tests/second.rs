//! The second verifier, in another language and by another hand, must say the same of every log and every proof.

use std::process::Command;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::{Value, json};

use super::log::{Item, Rendered, entry, head_line, key_entry, ordinary, public, render};
use crate::audit::{
    export::verify_export,
    note::{PublicKey, SignedNote},
    proof::verify_proof,
    tree::{Frontier, Nodes, inclusion, leaf_hash},
};

/// A case, and what the first verifier says of it.
struct Case {
    bytes: Vec<u8>,
    keys: Vec<PublicKey>,
    since: Vec<SignedNote>,
    proof: bool,
}

impl Case {
    fn verdict(&self) -> String {
        if self.proof {
            return match verify_proof(&self.bytes, self.keys.clone()) {
                Ok(proved) if proved.verdict.code() == 1 => format!("1 {}", proved.seq),
                Ok(proved) => format!("{} -", proved.verdict.code()),
                Err(_) => "2 -".to_owned(),
            };
        }
        match verify_export(self.bytes.as_slice(), self.keys.clone(), self.since.clone(), |_| {}) {
            Ok(report) => format!("{} {}", report.verdict.code(), report.first_bad.map_or("-".to_owned(), |seq| seq.to_string())),
            Err(_) => "2 -".to_owned(),
        }
    }
}

fn checkpoints(items: &mut [Item], by: u8) {
    for item in items {
        if let Item::Checkpoint(key) = item {
            *key = by;
        }
    }
}

/// Something that a forger, an accident or nobody does to a log.
fn case(dice: &mut StdRng, seed: u64) -> Case {
    let length = dice.random_range(1..50);
    let items = ordinary(dice, length);
    let real = render(&items, seed);
    let since: Vec<SignedNote> = real.notes.choose_multiple_like(dice);
    let keys = match dice.random_range(0..10) {
        0 => Vec::new(),
        1 => vec![public(1)],
        2 => vec![public(9)],
        3 => vec![public(9), public(0)],
        _ => vec![public(0)],
    };
    let mut forged = items.clone();
    let place = dice.random_range(0..items.len());
    let bytes = match dice.random_range(0..20) {
        0..=4 => real.bytes(),
        5 => lines(&real, |lines| drop(lines.remove(dice.random_range(0..lines.len())))),
        6 => lines(&real, |lines| lines.insert(dice.random_range(0..=lines.len()), lines[dice.random_range(0..lines.len())].clone())),
        7 => lines(&real, |lines| lines.shuffle(dice)),
        8 => lines(&real, |lines| lines.truncate(dice.random_range(1..=lines.len()))),
        9 => lines(&real, |lines| {
            let entries = real.entries().len();
            let cut = dice.random_range(1..=lines.len());
            lines.truncate(cut);
            let left = u64::try_from(real.entries().iter().filter(|line| **line < cut).count()).unwrap();
            assert!(usize::try_from(left).unwrap() <= entries);
            lines[0] = head_line(left, Some(&public(0)));
        }),
        10 => {
            let mut bytes = real.bytes();
            let bit = dice.random_range(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        }
        11 => {
            forged[place] = entry("MOD01I", "module", "forged", json!({ "enabled": true }));
            render(&forged, seed).bytes()
        }
        12 => {
            forged[place] = entry("EXE01I", "execution", "exe_forged", json!({ "approval": "apr_none", "jti_sha256": "00", "plan": "p" }));
            render(&forged, seed).bytes()
        }
        13 => {
            checkpoints(&mut forged[place..], 9);
            forged.insert(
                dice.random_range(0..forged.len()),
                key_entry(["SGN01I", "SGN02I", "SGN03W"][dice.random_range(0..3)], dice.random_range(0..2) * 9),
            );
            render(&forged, seed).bytes()
        }
        16 => {
            // the key that signed so far is retired in the middle, and some go on signing with it
            forged.insert(place, key_entry("SGN02I", 0));
            forged.insert(place, key_entry("SGN01I", 1));
            for item in &mut forged[place..] {
                if let Item::Checkpoint(key) = item {
                    *key = u8::from(dice.random_range(0..8) != 0);
                }
            }
            render(&forged, seed).bytes()
        }
        17 => {
            // a plan that is not the one that was approved, or proposed
            for item in &mut forged[place..] {
                if let Item::Entry { code: code @ ("PRO01I" | "APR01I" | "EXE01I"), body, .. } = item
                    && dice.random()
                {
                    let member = if *code == "PRO01I" { "plan_text" } else { "plan" };
                    body[member] = [json!("forged"), json!("sha256:01"), Value::Null][dice.random_range(0..3)].clone();
                }
            }
            render(&forged, seed).bytes()
        }
        14 => {
            if let Item::Entry { whole, .. } = &mut forged[place] {
                *whole = false;
            }
            forged.push(entry(
                ["RED01I", "RET01I", "MOD01I"][dice.random_range(0..3)],
                "audit",
                format!("{}-{}", place, place + 1),
                json!({}),
            ));
            forged.push(Item::Checkpoint(0));
            render(&forged, seed).bytes()
        }
        _ => {
            forged.swap(place, 0);
            forged.extend(forged.clone().into_iter().take(dice.random_range(0..9)));
            render(&forged, seed).bytes()
        }
    };
    Case { bytes, keys, since, proof: false }
}

fn lines(real: &Rendered, change: impl FnOnce(&mut Vec<String>)) -> Vec<u8> {
    let mut changed = real.clone();
    change(&mut changed.lines);
    changed.bytes()
}

trait ChooseLike {
    fn choose_multiple_like(&self, dice: &mut StdRng) -> Vec<SignedNote>;
}

impl ChooseLike for Vec<SignedNote> {
    fn choose_multiple_like(&self, dice: &mut StdRng) -> Vec<SignedNote> {
        self.iter().filter(|_| dice.random_range(0..4) == 0).cloned().collect()
    }
}

/// The nodes of a log that was rendered.
struct Leaves(Vec<[u8; 32]>);

impl Nodes for Leaves {
    type Error = std::convert::Infallible;
    fn node(&mut self, level: u8, index: u64) -> Result<[u8; 32], Self::Error> {
        let width = 1_usize << level;
        let first = usize::try_from(index).unwrap() * width;
        let mut tree = Frontier::default();
        self.0[first..first + width].iter().for_each(|leaf| tree.push(*leaf, |_, _, _| {}));
        Ok(tree.root())
    }
}

fn proof_case(dice: &mut StdRng, seed: u64) -> Option<Case> {
    let length = dice.random_range(2..50);
    let real = render(&ordinary(dice, length), seed);
    let note = real.notes.last()?;
    let rows: Vec<Value> = real.entries().iter().map(|line| serde_json::from_str(&real.lines[*line]).unwrap()).collect();
    let mut leaves = Leaves(rows.iter().map(|row| leaf_hash(row["leaf"].as_str().unwrap().as_bytes())).collect());
    let size = note.checkpoint().size;
    let seq = dice.random_range(1..=size);
    let Ok(path) = inclusion(&mut leaves, seq - 1, size);
    let row = &rows[usize::try_from(seq).unwrap() - 1];
    let mut path: Vec<String> = path?.iter().map(hex::encode).collect();
    let mut proof = json!({
        "format": "opspilot-proof-1", "seq": seq, "leaf": row["leaf"], "salt": row["salt"], "body": row["body"],
        "path": path, "checkpoint": note.text(), "key": public(0).to_string(),
    });
    match dice.random_range(0..9) {
        0 => proof["seq"] = json!(dice.random_range(0..=size + 2)),
        1 => drop(path.pop()),
        2 => path.push("00".repeat(32)),
        3 => path.shuffle(dice),
        4 => path.resize(70, "11".repeat(32)),
        5 => proof["body"] = json!("{}"),
        6 => (proof["body"], proof["salt"]) = (Value::Null, Value::Null),
        7 => proof["checkpoint"] = json!(real.notes[0].text()),
        _ => {}
    }
    proof["path"] = json!(path);
    let mut bytes = proof.to_string().into_bytes();
    if dice.random_range(0..4) == 0 {
        let bit = dice.random_range(0..bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    let keys = match dice.random_range(0..4) {
        0 => Vec::new(),
        1 => vec![public(1)],
        _ => vec![public(0), public(1)],
    };
    Some(Case { bytes, keys, since: Vec::new(), proof: true })
}

/// Whether Python with its package is there. Under `OPSPILOT_REQUIRE_TOOLS` it must be.
fn has_python() -> bool {
    let there = Command::new("python3").args(["-c", "import cryptography"]).output().is_ok_and(|output| output.status.success());
    assert!(
        there || std::env::var_os("OPSPILOT_REQUIRE_TOOLS").is_none(),
        "python3 with the package cryptography is not installed, and must be here"
    );
    if !there {
        eprintln!("SKIPPED: python3 with the package cryptography is not installed");
    }
    there
}

#[test]
fn f10_two_verifiers_that_share_nothing_agree_on_a_thousand_logs_and_on_forged_proofs() {
    if !has_python() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let seed = 20_261_122;
    let mut dice = StdRng::seed_from_u64(seed);
    let mut cases: Vec<Case> = (0..1_000).map(|n| case(&mut dice, n)).collect();
    while cases.len() < 1_600 {
        cases.extend(proof_case(&mut dice, seed));
    }
    let listed: Vec<Value> = cases
        .iter()
        .enumerate()
        .map(|(n, case)| {
            let file = dir.path().join(format!("{n}"));
            std::fs::write(&file, &case.bytes).unwrap();
            json!({
                "file": file, "proof": case.proof, "keys": case.keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "since": case.since.iter().map(SignedNote::text).collect::<Vec<_>>(),
            })
        })
        .collect();
    let list = dir.path().join("cases.json");
    std::fs::write(&list, json!(listed).to_string()).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/audit_verifier/verify.py");
    let output = Command::new("python3").args([script, "--batch"]).arg(&list).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let second: Vec<&str> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
    assert_eq!(second.len(), cases.len());
    let mut seen = std::collections::BTreeMap::new();
    for (n, (case, second)) in cases.iter().zip(second).enumerate() {
        let first = case.verdict();
        if first != *second {
            let kept = std::env::temp_dir().join(format!("f10-{n}"));
            std::fs::write(&kept, &case.bytes).unwrap();
            panic!("case {n} of seed {seed}: {first} and {second}; kept as {}; {}", kept.display(), listed[n]["keys"]);
        }
        *seen.entry((case.proof, first.split(' ').next().unwrap().to_owned())).or_insert(0) += 1;
    }
    println!("both say (of a proof, code): {seen:?}");
    for proof in [false, true] {
        for code in ["0", "1", "2", "3"] {
            assert!(seen.get(&(proof, code.to_owned())).copied().unwrap_or(0) > 10, "{proof} {code}: {seen:?}");
        }
    }
}
