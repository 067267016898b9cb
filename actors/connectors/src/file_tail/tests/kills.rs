//! Writing, rotating, reading and killing in every order.

use std::{fs, path::Path, time::Duration};

use opspilot_kernel::config::Span;
use proptest::prelude::*;

use super::{Rig, long};

#[derive(Debug, Clone)]
enum Act {
    Write(usize),
    Partial,
    Step,
    Killed,
    Restart,
    Rotate,
    CopyTruncate,
    Wait,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (1..4_usize).prop_map(Act::Write),
        1 => Just(Act::Partial),
        4 => Just(Act::Step),
        2 => Just(Act::Killed),
        1 => Just(Act::Restart),
        1 => Just(Act::Rotate),
        1 => Just(Act::CopyTruncate),
        1 => Just(Act::Wait),
    ];
    proptest::collection::vec(act, 1..60)
}

/// A log that is written, rotated and read in every order; lines are numbered, so that loss and repetition show.
fn play(rig: &mut Rig, acts: &[Act], copy_truncate: bool) -> Vec<String> {
    let (mut number, mut rotation, mut open_line, mut known) = (0, 0, false, false);
    let mut written = Vec::new();
    let mut write = |rig: &Rig, open_line: &mut bool, end: bool| {
        if !*open_line {
            number += 1;
            written.push(long(number).trim_end().to_owned());
            rig.append("app.log", long(number).trim_end());
        }
        if end {
            rig.append("app.log", "\n");
        }
        *open_line = !end;
    };
    for act in acts {
        match act {
            Act::Write(lines) => (0..*lines).for_each(|_| write(rig, &mut open_line, true)),
            Act::Partial => write(rig, &mut open_line, false),
            Act::Step => {
                rig.step(true);
                known = Path::exists(&rig.path("app.log"));
            }
            Act::Killed => drop(rig.step(false)),
            Act::Restart => rig.restart(),
            // A partial line is taken after five seconds; here every line is completed before.
            Act::Wait => rig.clock.advance(Duration::from_millis(10)),
            Act::Rotate | Act::CopyTruncate if !Path::exists(&rig.path("app.log")) || open_line => {}
            // Nobody can follow a file of which nothing was ever seen.
            Act::Rotate | Act::CopyTruncate if !known => {}
            Act::Rotate => {
                rotation += 1;
                rig.rename("app.log", &format!("app.log.{rotation}"));
                known = false;
            }
            Act::CopyTruncate if copy_truncate => {
                rotation += 1;
                fs::copy(rig.path("app.log"), rig.path(&format!("app.log.{rotation}"))).unwrap();
                fs::write(rig.path("app.log"), "").unwrap();
                // A copy is recognised by what was read of the original: it must have been read a little.
                rig.read();
                write(rig, &mut open_line, true);
                rig.read();
            }
            Act::CopyTruncate => {}
        }
    }
    if open_line {
        write(rig, &mut open_line, true);
    }
    rig.read();
    written
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a1_kills_at_any_moment_neither_lose_nor_repeat_a_line(acts in acts()) {
        for (pattern, copy_truncate) in [("app.log", false), ("app.log*", false), ("app.log", true), ("app.log*", true)] {
            let mut rig = Rig::new(pattern, |config| config.poll = Span::millis(10));
            let written = play(&mut rig, &acts, copy_truncate);
            let mut got = rig.texts();
            got.sort_unstable();
            prop_assert_eq!(got, written);
        }
    }
}
