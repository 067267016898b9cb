//! Logs that somebody changed.

use rand::{SeedableRng, rngs::StdRng};
use serde_json::json;

use super::log::{self, Item, Rendered, checkpoint_line, entry, head_line, key, key_entry, ordinary, origin, public, render};
use crate::audit::{
    export::{ExportVerifier, Line, verify_export},
    note::{Checkpoint, PublicKey, SignedNote},
    verify::{Report, Verdict},
};

fn verify_with(bytes: &[u8], keys: Vec<PublicKey>, held: Vec<SignedNote>) -> Report {
    verify_export(bytes, keys, held, |_| {}).unwrap()
}

fn verify(rendered: &Rendered) -> Report {
    verify_with(&rendered.bytes(), vec![public(0)], Vec::new())
}

/// 64 entries, none without its payload, the last of them announcing the last checkpoint.
fn sixty_four() -> Rendered {
    let whole = |items: &Vec<Item>| items.iter().all(|item| !matches!(item, Item::Entry { whole: false, .. }));
    let mut items = (0..).map(|seed| ordinary(&mut StdRng::seed_from_u64(seed), 60)).find(whole).unwrap();
    items.push(entry("APR01I", "approval", "apr_z", json!({ "plan": "p" })));
    items.push(entry("EXE01I", "execution", "exe_z", json!({ "approval": "apr_z", "jti_sha256": "ff", "plan": "p" })));
    items.push(entry("EXE02I", "execution", "exe_z", json!({})));
    items.push(checkpoint_by_last(&items));
    let rendered = render(&items, 7);
    assert_eq!(rendered.entries().len(), 64);
    rendered
}

/// A checkpoint by the key that was not retired.
fn checkpoint_by_last(items: &[Item]) -> Item {
    Item::Checkpoint(u8::from(items.iter().any(|item| matches!(item, Item::Entry { code: "SGN02I", .. }))))
}

#[test]
fn what_nobody_touched_is_as_it_was_written() {
    for seed in 0..60 {
        let items = ordinary(&mut StdRng::seed_from_u64(seed), 40);
        let signed = items.iter().any(|item| matches!(item, Item::Checkpoint(_)));
        let deleted = items.iter().any(|item| matches!(item, Item::Entry { whole: false, .. }));
        let report = verify(&render(&items, seed));
        let expected = match (signed, deleted) {
            (false, _) => Verdict::Unverifiable,
            (true, true) => Verdict::OkWithDeletions,
            (true, false) => Verdict::Ok,
        };
        assert_eq!((report.verdict, report.entries), (expected, 40), "{seed}: {report:?}");
    }
}

#[test]
fn f1_every_bit_of_every_byte_of_a_log_counts_and_the_entry_is_named() {
    let rendered = sixty_four();
    let whole = verify(&rendered);
    assert!(matches!(whole.verdict, Verdict::Ok | Verdict::OkWithDeletions), "{whole:?}");
    let lines: Vec<Vec<u8>> = rendered.lines.iter().map(|line| format!("{line}\n").into_bytes()).collect();
    // the state of the check before each line, so that what comes before a flipped bit is not checked again each time
    let mut before = vec![ExportVerifier::begin(&lines[0], vec![public(0)]).unwrap()];
    for line in &lines[1..] {
        let mut next = before.last().unwrap().clone();
        next.take(line);
        before.push(next);
    }
    let (mut flipped, mut named) = (0_u64, 0_u64);
    let halves: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let half = |odd: usize| {
            let (lines, before, rendered) = (&lines, &before, &rendered);
            move || (1..lines.len()).filter(|at| at % 2 == odd).map(|at| flip_line(lines, before, rendered, at)).collect::<Vec<_>>()
        };
        let (even, odd) = (scope.spawn(half(0)), scope.spawn(half(1)));
        even.join().unwrap().into_iter().chain(odd.join().unwrap()).collect()
    });
    halves.iter().for_each(|(all, by_name)| (flipped, named) = (flipped + all, named + by_name));
    // the first line says what is to come, and with which key it was exported
    for bit in 0..lines[0].len() * 8 {
        let mut bytes = rendered.bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let verdict = verify_export(bytes.as_slice(), Vec::new(), Vec::new(), |_| {}).map(|report| report.verdict);
        assert!(!matches!(verdict, Ok(Verdict::Ok | Verdict::OkWithDeletions)), "bit {bit} of the first line");
        flipped += 1;
    }
    println!("{flipped} bits flipped, all detected; {named} in entries, each named");
    assert!(flipped > 200_000);
}

/// Flips every bit of a line; says how many there were, and in how many cases an entry was named.
fn flip_line(lines: &[Vec<u8>], before: &[ExportVerifier], rendered: &Rendered, at: usize) -> (u64, u64) {
    let seq = rendered.entries().iter().position(|line| *line == at).map(|place| u64::try_from(place).unwrap() + 1);
    let (mut flipped, mut named) = (0, 0);
    let mut line = lines[at].clone();
    for bit in 0..line.len() * 8 {
        line[bit / 8] ^= 1 << (bit % 8);
        flipped += 1;
        let alone = if bit / 8 == line.len() - 1 { None } else { Some(Line::read(&line[..line.len() - 1])) };
        let found_alone = match &alone {
            Some(Line::Wrong(_) | Line::Entry(_, false)) => true,
            Some(Line::Entry(entry, _)) => entry.wrong.is_some(),
            _ => false,
        };
        if found_alone {
            // then it is said of the entry whose turn it is
            named += u64::from(seq.is_some());
            line[bit / 8] ^= 1 << (bit % 8);
            continue;
        }
        let mut verifier = before[at - 1].clone();
        if bit / 8 == line.len() - 1 {
            // the end of the line is gone: it runs on into the next
            let mut joined = line.clone();
            joined.extend_from_slice(lines.get(at + 1).map_or(&[], Vec::as_slice));
            verifier.take(&joined);
            lines.iter().skip(at + 2).for_each(|line| verifier.take(line));
        } else {
            verifier.take(&line);
            if !verifier.is_wrong() {
                lines.iter().skip(at + 1).for_each(|line| verifier.take(line));
            }
        }
        let wrong = verifier.first_bad();
        let report = if wrong.is_none() { Some(verifier.finish()) } else { None };
        let found = wrong.or(report.and_then(|report| report.first_bad));
        assert!(found.is_some(), "bit {bit} of line {at} is not missed: {}", String::from_utf8_lossy(&line));
        if let Some(seq) = seq {
            assert_eq!(found, Some(seq), "bit {bit} of line {at}");
            named += 1;
        }
        line[bit / 8] ^= 1 << (bit % 8);
    }
    (flipped, named)
}

#[test]
fn f2_no_entry_is_deleted_added_swapped_doubled_or_cut_off_unnoticed() {
    let rendered = sixty_four();
    let entries = rendered.entries();
    let check = |lines: Vec<String>, first_bad: u64, what: &str| {
        let report = verify(&Rendered { lines, notes: Vec::new() });
        assert_eq!(
            (report.verdict, report.first_bad),
            (Verdict::Tampered, Some(first_bad)),
            "{what} at {first_bad}: {:?}",
            report.findings
        );
    };
    for (place, line) in entries.iter().copied().enumerate() {
        let seq = u64::try_from(place).unwrap() + 1;
        let with = |change: &dyn Fn(&mut Vec<String>)| {
            let mut lines = rendered.lines.clone();
            change(&mut lines);
            lines
        };
        check(with(&|lines| drop(lines.remove(line))), seq, "deleted");
        check(with(&|lines| lines.insert(line, lines[line].clone())), seq + 1, "doubled");
        if place + 1 < entries.len() {
            check(with(&|lines| lines.swap(line, entries[place + 1])), seq, "swapped");
        }
        check(with(&|lines| lines.truncate(line)), seq, "cut off");
        // the head goes along with it: then what was published earlier tells
        let cut = with(&|lines| {
            lines.truncate(line);
            lines[0] = head_line(seq - 1, None);
        });
        let held = rendered.notes.last().unwrap().clone();
        let report = verify_with(&Rendered { lines: cut, notes: Vec::new() }.bytes(), vec![public(0)], vec![held]);
        assert_eq!((report.verdict, report.first_bad), (Verdict::Tampered, Some(seq)), "cut off with its head: {:?}", report.findings);
    }
}

#[test]
fn f2_a_renumbered_log_with_an_entry_less_or_more_is_not_what_was_signed() {
    let items = ordinary(&mut StdRng::seed_from_u64(3), 30);
    let real = render(&items, 3);
    let last = real.notes.last().unwrap().checkpoint().size;
    // without its last checkpoint it is a log that was not signed so far
    for place in 0..usize::try_from(last).unwrap() - 1 {
        for added in [false, true] {
            let mut forged = items.clone();
            if !added && matches!(items[place], Item::Checkpoint(_)) {
                // with its entry and its note gone a checkpoint was never made; f2 in `live` takes the note alone
                continue;
            }
            if added {
                forged.insert(place, entry("MOD01I", "module", "never", json!({ "enabled": false })));
            } else {
                forged.remove(place);
            }
            // whoever has no key keeps the notes that are there
            let mut rendered = render(&forged, 3);
            let mut notes = real.notes.iter();
            for line in rendered.lines.iter_mut().filter(|line| line.starts_with("{\"checkpoint\"")) {
                *line = notes.next().map(checkpoint_line).unwrap_or_default();
            }
            let report = verify(&rendered);
            assert_eq!(report.verdict, Verdict::Tampered, "{place} {added}");
        }
    }
}

#[test]
fn f3_whoever_recomputes_everything_without_the_key_has_no_signature() {
    let mut items = ordinary(&mut StdRng::seed_from_u64(11), 40);
    items.push(Item::Checkpoint(0));
    let forger = |items: &[Item]| -> Vec<Item> {
        let mut forged = items.to_vec();
        forged[1] = entry("MOD01I", "module", "something else", json!({ "enabled": true }));
        forged
    };
    // with a key of his own, in the place of the real one or announced in the log
    for announced in [false, true] {
        let mut forged: Vec<Item> = forger(&items);
        forged.iter_mut().for_each(|item| {
            if let Item::Checkpoint(by) = item {
                *by = 9;
            }
        });
        if announced {
            forged.insert(0, key_entry("SGN01I", 9));
        }
        let report = verify(&render(&forged, 11));
        assert_eq!(report.verdict, Verdict::Tampered, "{report:?}");
        assert!(report.findings.iter().any(|finding| finding.what.contains("not signed by a key that is trusted")));
    }
    // with the real key's name on a signature that is made up
    let mut rendered = render(&forger(&items), 11);
    for line in rendered.lines.iter_mut().filter(|line| line.starts_with("{\"checkpoint\"")) {
        let at = line.rfind("\\n\"").unwrap() - 6;
        line.replace_range(at..at + 4, "AAAA");
    }
    assert_eq!(verify(&rendered).verdict, Verdict::Tampered);
}

#[test]
fn f4_a_log_rewritten_and_signed_again_with_the_real_key_is_exposed_by_any_earlier_note() {
    let mut items = ordinary(&mut StdRng::seed_from_u64(5), 40);
    items.push(checkpoint_by_last(&items));
    let real = render(&items, 5);
    let rewritten = |place: usize| {
        let mut forged = items.clone();
        forged[place] = entry("MOD01I", "module", "rewritten", json!({ "enabled": true }));
        render(&forged, 5)
    };
    let (mut exposed, mut later) = (0, 0);
    for place in (0..40).filter(|place| matches!(items[*place], Item::Entry { code: "MOD01I", whole: true, .. })) {
        let forged = rewritten(place);
        assert!(verify(&forged).verdict != Verdict::Tampered, "by itself it is flawless");
        for note in &real.notes {
            let report = verify_with(&forged.bytes(), vec![public(0)], vec![note.clone()]);
            if note.checkpoint().size > u64::try_from(place).unwrap() {
                assert_eq!(report.verdict, Verdict::Tampered, "{place} {}", note.checkpoint().size);
                exposed += 1;
            } else {
                assert!(report.verdict != Verdict::Tampered, "what was fixed before the change is as it was");
                later += 1;
            }
        }
    }
    assert!(exposed > 10 && later > 10, "{exposed} {later}");
}

#[test]
fn f5_two_readers_who_compare_their_notes_find_a_fork() {
    let common = ordinary(&mut StdRng::seed_from_u64(6), 20);
    let fork = |name: &str| {
        let mut items = common.clone();
        items.push(entry("MOD01I", "module", name, json!({ "enabled": true })));
        items.push(Item::Checkpoint(0));
        render(&items, 6)
    };
    let (mine, yours) = (fork("mine"), fork("yours"));
    assert!(verify(&mine).verdict != Verdict::Tampered && verify(&yours).verdict != Verdict::Tampered);
    let report = verify_with(&mine.bytes(), vec![public(0)], vec![yours.notes.last().unwrap().clone()]);
    assert_eq!(report.verdict, Verdict::Tampered);
}

#[test]
fn a_key_vouches_for_the_next_and_for_those_before_it() {
    let items = vec![
        key_entry("SGN01I", 0),
        Item::Checkpoint(0),
        key_entry("SGN01I", 1),
        Item::Checkpoint(0),
        key_entry("SGN02I", 0),
        Item::Checkpoint(1),
        key_entry("SGN01I", 2),
        key_entry("SGN03W", 1),
        Item::Checkpoint(2),
    ];
    let rendered = render(&items, 1);
    let by = |number| verify_with(&rendered.bytes(), vec![public(number)], Vec::new());
    assert_eq!(by(2).verdict, Verdict::Ok, "{:?}", by(2));
    assert_eq!(by(2).keys.len(), 3);
    // a revoked key vouches for nobody: the one that follows it has to come from elsewhere
    assert_eq!(by(0).verdict, Verdict::Tampered);
    assert_eq!(by(9).verdict, Verdict::Tampered);
    let rotated = render(&items[..6], 1);
    assert_eq!(verify(&rotated).verdict, Verdict::Ok);
    let elsewhere = PublicKey::of("opspilot.local/ff/audit", &key(0));
    assert_eq!(verify_with(&rotated.bytes(), vec![elsewhere], Vec::new()).verdict, Verdict::Unverifiable);
    let mut revoked = items.clone();
    revoked.push(Item::Checkpoint(1));
    let report = verify_with(&render(&revoked, 1).bytes(), vec![public(2)], Vec::new());
    assert!(report.findings.iter().any(|finding| finding.what.contains("revoked at entry 8")), "{report:?}");
}

#[test]
fn f3_a_key_that_was_retired_signs_nothing_any_more() {
    let rotated = vec![
        key_entry("SGN01I", 0),
        Item::Checkpoint(0),
        key_entry("SGN01I", 1),
        Item::Checkpoint(0),
        key_entry("SGN02I", 0),
        entry("MOD01I", "module", "m", json!({ "enabled": true })),
        Item::Checkpoint(1),
    ];
    assert_eq!(verify(&render(&rotated, 1)).verdict, Verdict::Ok, "an ordinary rotation");
    // whoever still has the old key rewrites what came after it, or goes on from there
    for place in [5, 7] {
        let mut forged = rotated[..place].to_vec();
        forged.push(entry("MOD01I", "module", "forged", json!({ "enabled": false })));
        forged.push(Item::Checkpoint(0));
        for keys in [vec![public(0)], vec![public(1)], vec![public(0), public(1)]] {
            let report = verify_with(&render(&forged, 1).bytes(), keys, Vec::new());
            assert_eq!((report.verdict, report.first_bad.is_some()), (Verdict::Tampered, true), "{place}: {report:?}");
        }
        let report = verify(&render(&forged, 1));
        assert!(report.findings.iter().any(|finding| finding.seq == 5 && finding.what.contains("retired at entry 5")), "{report:?}");
    }
}

#[test]
fn entries_must_agree_with_each_other() {
    let start = |execution: &str, approval: &str, token: &str| {
        entry("EXE01I", "execution", execution, json!({ "approval": approval, "jti_sha256": token, "plan": "p" }))
    };
    let approved = |id: &str| entry("APR01I", "approval", id, json!({ "plan": "p" }));
    let end = |id: &str| entry("EXE02I", "execution", id, json!({}));
    let verdict = |items: Vec<Item>| {
        let items: Vec<Item> = std::iter::once(key_entry("SGN01I", 0)).chain(items).chain([Item::Checkpoint(0)]).collect();
        let report = verify(&render(&items, 1));
        (report.verdict, report.first_bad)
    };
    assert_eq!(verdict(vec![approved("a"), start("x", "a", "t"), end("x")]), (Verdict::Ok, None));
    let words = entry("PRO01I", "approval", "a", log::proposed("{\"args\":[\"ü\"]}", "{\"args\":[\"ü\"]}"));
    assert_eq!(verdict(vec![words]), (Verdict::Ok, None));
    assert_eq!(verdict(vec![approved("a"), start("x", "a", "t")]), (Verdict::Ok, None), "it still runs");
    for (items, seq) in [
        (vec![start("x", "a", "t")], 2),
        (vec![start("x", "a", "t"), approved("a")], 2),
        (vec![approved("a"), start("x", "a", "t"), start("y", "a", "u")], 4),
        (vec![approved("a"), approved("b"), start("x", "a", "t"), start("y", "b", "t")], 5),
        (vec![approved("a"), end("x")], 3),
        (vec![approved("a"), end("x"), start("x", "a", "t")], 3),
        (vec![approved("a"), entry("EXE01I", "execution", "x", json!({ "approval": "a", "plan": "p" }))], 3),
        // what ran is what was approved, and what was approved is what stands there
        (vec![approved("a"), entry("EXE01I", "execution", "x", json!({ "approval": "a", "jti_sha256": "t", "plan": "q" }))], 3),
        (vec![approved("a"), entry("EXE01I", "execution", "x", json!({ "approval": "a", "jti_sha256": "t" }))], 3),
        (vec![entry("APR01I", "approval", "a", json!({}))], 2),
        (vec![entry("PRO01I", "approval", "a", log::proposed("{\"args\":[\"a\"]}", "{\"args\":[\"b\"]}"))], 2),
    ] {
        assert_eq!(verdict(items.clone()), (Verdict::Tampered, Some(seq)), "{items:?}");
    }
}

#[test]
fn f9_a_deleted_payload_must_be_on_record() {
    let mut items = vec![key_entry("SGN01I", 0), entry("MOD01I", "module", "m", json!({ "enabled": true }))];
    if let Item::Entry { whole, .. } = &mut items[1] {
        *whole = false;
    }
    let with = |items: &[Item], more: Item| {
        let all: Vec<Item> = items.iter().cloned().chain([more, Item::Checkpoint(0)]).collect();
        verify(&render(&all, 1))
    };
    let unexplained = with(&items, entry("MOD01I", "module", "n", json!({})));
    assert_eq!((unexplained.verdict, unexplained.first_bad), (Verdict::Tampered, Some(2)));
    for object in ["2", "1-2", "2-9"] {
        assert_eq!(with(&items, entry("RED01I", "audit", object, json!({}))).verdict, Verdict::OkWithDeletions, "{object}");
    }
    assert_eq!(with(&items, entry("RED01I", "audit", "3", json!({}))).verdict, Verdict::Tampered);
}

#[test]
fn f12_notes_over_absurd_sizes_are_no_reason_to_panic() {
    let rendered = sixty_four();
    for size in [0, 1, 1 << 63, u64::MAX] {
        let note = Checkpoint { origin: origin(), size, root: [3; 32] }.sign(&log::key(0));
        let report = verify_with(&rendered.bytes(), vec![public(0)], vec![note.clone()]);
        assert_eq!(report.verdict, Verdict::Tampered, "{size}");
        let mut lines = rendered.lines.clone();
        lines.push(checkpoint_line(&note));
        assert_eq!(verify(&Rendered { lines, notes: Vec::new() }).verdict, Verdict::Tampered, "{size}");
    }
}
