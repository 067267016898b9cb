//! The engine over real files: every way in which a log can be rotated, and a reader killed.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use opspilot_kernel::{clock::ManualClock, config::Span, signal::Severity, time::Timestamp};
use proptest::prelude::*;

use super::{
    config::{Config, FileConfig, Multiline, StartAt},
    engine::{Engine, Saving},
};

/// What a consumer sees of a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    text: String,
    source: String,
    file: String,
    severity: Severity,
    at: Timestamp,
}

/// A ledger reduced to what matters here: lines and checkpoints that are stored together or not at all.
struct Rig {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    config: Config,
    engine: Engine,
    stored: BTreeMap<String, Vec<u8>>,
    lines: Vec<Line>,
}

const NOW: i64 = 1_795_348_800_000;

impl Rig {
    fn new(pattern: &str, adjust: impl FnOnce(&mut Config)) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(pattern).display().to_string();
        let mut config = Config { files: vec![FileConfig::of(path)], ..Config::default() };
        adjust(&mut config);
        let clock = ManualClock::at(Timestamp::from_millis(NOW));
        let engine = Engine::new(config.clone(), Vec::new(), clock.clone());
        Rig { dir, clock, config, engine, stored: BTreeMap::new(), lines: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes.as_ref()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// One step, stored; or lost, as if the process had been killed before the commit.
    fn step(&mut self, survives: bool) -> bool {
        let mut lines = Vec::new();
        let step = self.engine.step(&mut |signal| {
            lines.push(Line {
                text: signal.message.to_owned(),
                source: signal.source.to_owned(),
                file: signal.labels.get("file").unwrap().to_owned(),
                severity: signal.severity,
                at: signal.at,
            });
        });
        if survives {
            self.lines.extend(lines);
            for (key, blob) in step.savings {
                if blob.is_empty() {
                    self.stored.remove(&key)
                } else {
                    self.stored.insert(key, blob)
                };
            }
        } else {
            self.restart();
        }
        step.more
    }

    /// Reads all there is.
    fn read(&mut self) -> Vec<String> {
        let before = self.lines.len();
        let mut steps = 0;
        while self.step(true) {
            steps += 1;
            assert!(steps < 10_000, "never comes to an end");
        }
        self.lines[before..].iter().map(|line| line.text.clone()).collect()
    }

    fn after(&mut self, span: Duration) -> Vec<String> {
        self.clock.advance(span);
        self.read()
    }

    fn restart(&mut self) {
        let stored: Vec<Saving> = self.stored.clone().into_iter().collect();
        self.engine = Engine::new(self.config.clone(), stored, self.clock.clone());
    }

    fn texts(&self) -> Vec<&str> {
        self.lines.iter().map(|line| line.text.as_str()).collect()
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A line long enough that a copy of a file is recognised by it.
fn long(number: usize) -> String {
    format!("{number:04} the quick brown fox jumps over the lazy dog and back again, forty times\n")
}

#[test]
fn lines_become_signals_with_source_severity_time_and_file() {
    let mut rig = Rig::new("shop.log", |config| {
        config.files[0].labels.insert("team".into(), "web".into());
    });
    rig.append("shop.log", "2026-11-22T11:59:00Z ERROR payment failed\nplain\n");
    rig.read();
    let file = rig.path("shop.log").display().to_string();
    let line = |text: &str, severity, at| Line { text: text.into(), source: "shop".into(), file: file.clone(), severity, at };
    assert_eq!(
        rig.lines,
        [
            line("2026-11-22T11:59:00Z ERROR payment failed", Severity::Error, Timestamp::from_millis(NOW - 60_000)),
            line("plain", Severity::Info, Timestamp::from_millis(NOW)),
        ]
    );
}

#[test]
fn a_glob_picks_up_files_that_appear_later_and_in_new_folders() {
    let mut rig = Rig::new("*/app-*.log", |_| {});
    rig.append("a/app-1.log", "one\n");
    rig.append("a/other.log", "no\n");
    assert_eq!(rig.read(), ["one"]);
    rig.append("b/app-2.log", "two\n");
    rig.append("a/app-1.log", "three\n");
    assert_eq!(rig.read(), ["three", "two"]);
    assert_eq!(rig.lines[2].source, "app-2");
}

#[test]
fn a_rename_rotation_reads_the_old_file_to_its_end_and_then_the_new_one() {
    let mut rig = Rig::new("app.log", |_| {});
    rig.append("app.log", "1\n");
    assert_eq!(rig.read(), ["1"]);
    rig.append("app.log", "2\nhal");
    rig.rename("app.log", "app.log.1");
    rig.append("app.log", "4\n");
    // The writer still holds the old file for a moment.
    rig.append("app.log.1", "f 3\n");
    assert_eq!(rig.read(), ["2", "half 3", "4"]);
    rig.append("app.log.1", "late, and without an end");
    assert_eq!(rig.read(), Vec::<String>::new());
    assert_eq!(rig.after(seconds(6)), ["late, and without an end"]);
    assert_eq!(rig.engine.files().0, 2);
    rig.after(seconds(61));
    assert_eq!(rig.engine.files(), (1, 1), "the rotated file is let go");
    assert_eq!(rig.stored.keys().filter(|key| key.starts_with("file/")).count(), 1);
    assert!(rig.lines.iter().all(|line| line.source == "app"));
    assert_eq!(rig.engine.counts.rotated, 1);
}

#[test]
fn a_file_renamed_while_the_service_was_down_is_found_by_its_inode_and_read_to_its_end() {
    let mut rig = Rig::new("app.log", |_| {});
    rig.append("app.log", "1\n2\n");
    rig.read();
    rig.append("app.log", "3\n");
    rig.rename("app.log", "app.log.1");
    rig.rename("app.log.1", "app.log.2");
    rig.append("app.log.1", "never seen: it lived and was rotated while nobody looked\n");
    rig.append("app.log", "4\n");
    rig.restart();
    assert_eq!(rig.read(), ["3", "4"]);
    assert_eq!(rig.engine.trouble(), None);
}

#[test]
fn a_renamed_file_that_still_matches_is_not_read_again() {
    let mut rig = Rig::new("app.log*", |_| {});
    rig.append("app.log", "1\n");
    rig.read();
    rig.append("app.log", "2\n");
    rig.rename("app.log", "app.log.1");
    rig.append("app.log", "3\n");
    assert_eq!(rig.read(), ["2", "3"]);
    rig.restart();
    assert_eq!(rig.read(), Vec::<String>::new());
    assert_eq!(rig.lines[1].source, "app");
}

#[test]
fn a_truncated_file_is_read_from_its_start_even_when_it_has_grown_past_the_old_place() {
    let mut rig = Rig::new("app.log", |_| {});
    rig.append("app.log", "old 1\nold 2\nunfinished");
    rig.read();
    fs::write(rig.path("app.log"), "new 1\n").unwrap();
    assert_eq!(rig.read(), ["unfinished", "new 1"]);
    fs::write(rig.path("app.log"), "another 1\nanother 2\n").unwrap();
    assert_eq!(rig.read(), ["another 1", "another 2"]);
    fs::write(rig.path("app.log"), "third 1\nthird 2\n").unwrap();
    rig.restart();
    assert_eq!(rig.read(), ["third 1", "third 2"]);
    assert_eq!(rig.engine.counts.truncated, 1);
}

#[test]
fn copytruncate_loses_nothing_that_the_copy_holds_and_repeats_nothing() {
    for pattern in ["app.log", "app.log*"] {
        for down in [false, true] {
            let mut rig = Rig::new(pattern, |_| {});
            rig.append("app.log", long(1) + &long(2));
            assert_eq!(rig.read().len(), 2);
            if !down && pattern == "app.log*" {
                // The copy is seen before the original is truncated.
                fs::copy(rig.path("app.log"), rig.path("app.log.1")).unwrap();
                assert_eq!(rig.read(), Vec::<String>::new());
            }
            rig.append("app.log", long(3) + "0004 no end yet");
            fs::copy(rig.path("app.log"), rig.path("app.log.1")).unwrap();
            fs::write(rig.path("app.log"), long(5)).unwrap();
            if down {
                rig.restart();
            }
            rig.read();
            rig.after(seconds(6));
            rig.after(seconds(120));
            let numbers: Vec<&str> = rig.lines.iter().map(|line| &line.text[..4]).collect();
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, ["0001", "0002", "0003", "0004", "0005"], "{pattern} {down}: {numbers:?}");
        }
    }
}

#[test]
fn another_file_with_the_same_inode_is_read_from_its_start() {
    let mut rig = Rig::new("app.log", |_| {});
    rig.append("app.log", "first file, first line\n");
    rig.read();
    // The same inode with other content, longer than before: what a reused inode looks like.
    let key = rig.stored.keys().find(|key| key.starts_with("file/")).unwrap().clone();
    rig.append("other", "second file, first line\nsecond file, second line\n");
    fs::remove_file(rig.path("app.log")).unwrap();
    fs::hard_link(rig.path("other"), rig.path("app.log")).unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(rig.path("app.log")).unwrap());
    let device = std::os::unix::fs::MetadataExt::dev(&fs::metadata(rig.path("app.log")).unwrap());
    let blob = rig.stored.remove(&key).unwrap();
    rig.stored.insert(format!("file/{device:x}:{inode:x}"), blob);
    rig.restart();
    assert_eq!(rig.read(), ["second file, first line", "second file, second line"]);
}

#[test]
fn a_device_that_got_another_number_does_not_make_files_new() {
    let mut rig = Rig::new("app.log", |_| {});
    rig.append("app.log", "1\n2\n");
    rig.read();
    let key = rig.stored.keys().find(|key| key.starts_with("file/")).unwrap().clone();
    let blob = rig.stored.remove(&key).unwrap();
    let (_, inode) = key.split_once(':').unwrap();
    rig.stored.insert(format!("file/ffff:{inode}"), blob);
    rig.append("app.log", "3\n");
    rig.restart();
    assert_eq!(rig.read(), ["3"]);
    assert_eq!(rig.stored.keys().filter(|key| key.starts_with("file/")).collect::<Vec<_>>(), [&key]);
}

#[test]
fn joined_records_wait_for_their_next_line_but_not_for_ever() {
    let mut rig = Rig::new("app.log", |config| config.files[0].multiline = Some(Multiline::starting_with(r"^\d")));
    rig.append("app.log", "1 boom\n  at a\n");
    assert_eq!(rig.read(), Vec::<String>::new());
    assert!(rig.engine.next_due() <= seconds(1));
    rig.append("app.log", "  at b\n2 ok\n");
    assert_eq!(rig.read(), ["1 boom\n  at a\n  at b"]);
    rig.restart();
    assert_eq!(rig.read(), Vec::<String>::new(), "the record that waits is read again, not given out twice");
    assert_eq!(rig.after(seconds(3)), ["2 ok"]);
    rig.restart();
    assert_eq!(rig.after(seconds(3)), Vec::<String>::new());
}

#[test]
fn a_line_without_an_end_is_taken_after_a_while_and_its_rest_follows() {
    let mut rig = Rig::new("app.log", |_| {});
    rig.append("app.log", "prompt: ");
    assert_eq!(rig.read(), Vec::<String>::new());
    assert_eq!(rig.after(seconds(4)), Vec::<String>::new());
    assert_eq!(rig.after(seconds(1)), ["prompt: "]);
    rig.append("app.log", "yes\n");
    assert_eq!(rig.read(), ["yes"]);
    assert_eq!(rig.after(seconds(60)), Vec::<String>::new());
}

#[test]
fn bytes_that_are_no_text_are_kept_as_far_as_they_are_and_counted() {
    let mut rig = Rig::new("app.log", |_| {});
    rig.append("app.log", b"ok\nbad \xff\xfe byte\n\xc3\xbcber\n");
    assert_eq!(rig.read(), ["ok", "bad \u{fffd}\u{fffd} byte", "\u{fc}ber"]);
    assert_eq!(rig.engine.counts.lossy, 1);
}

#[test]
fn very_long_lines_are_cut_counted_and_cost_bounded_memory() {
    let mut rig = Rig::new("app.log", |config| config.files[0].max_line = opspilot_kernel::config::Size(100));
    rig.append("app.log", vec![b'x'; 3 << 20]);
    assert_eq!(rig.read(), [format!("{} …[cut at 100 bytes]", "x".repeat(100))]);
    rig.restart();
    rig.append("app.log", "still the same line\nnext\n");
    assert_eq!(rig.read(), ["next"]);
}

#[test]
fn start_at_end_skips_only_what_was_there_at_the_very_first_start() {
    let mut rig = Rig::new("*.log", |config| config.files[0].start_at = StartAt::End);
    rig.append("old.log", "old\nold unfin");
    assert_eq!(rig.read(), Vec::<String>::new());
    rig.append("old.log", "ished\nfresh\n");
    rig.append("new.log", "new\n");
    assert_eq!(rig.read(), ["fresh", "new"]);
    rig.append("newer.log", "newer\n");
    rig.restart();
    assert_eq!(rig.read(), ["newer"]);
}

#[test]
fn one_bad_file_does_not_stop_the_others_and_is_named_with_its_reason() {
    let mut rig = Rig::new("*.log", |_| {});
    std::os::unix::fs::symlink("/etc/passwd", rig.path("evil.log")).unwrap();
    rig.append("good.log", "good\n");
    assert_eq!(rig.read(), ["good"]);
    let trouble = rig.engine.trouble().unwrap();
    assert!(trouble.contains("evil.log") && trouble.contains("symbolic link"), "{trouble}");
    fs::remove_file(rig.path("evil.log")).unwrap();
    rig.read();
    assert_eq!(rig.engine.trouble(), None);
}

#[test]
fn h7_links_fifos_and_devices_give_no_line() {
    let mut rig = Rig::new("*/*.log", |_| {});
    rig.append("outside/secret", "SECRET\n");
    rig.append("logs/good.log", "good\n");
    std::os::unix::fs::symlink(rig.path("outside/secret"), rig.path("logs/link.log")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", rig.path("logs/zero.log")).unwrap();
    std::os::unix::fs::symlink("/proc/self/environ", rig.path("logs/env.log")).unwrap();
    std::os::unix::fs::symlink("/etc", rig.path("etc")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, rig.path("logs/pipe.log"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!(rig.read(), ["good"]);
    // A followed file that is replaced by a link is finished, and the link is not followed.
    rig.append("logs/good.log", "last\n");
    fs::remove_file(rig.path("logs/good.log")).unwrap();
    std::os::unix::fs::symlink(rig.path("outside/secret"), rig.path("logs/good.log")).unwrap();
    assert_eq!(rig.read(), ["last"]);
    rig.restart();
    assert_eq!(rig.after(seconds(100)), Vec::<String>::new());
}

#[test]
fn a_missing_folder_is_named_and_followed_once_it_appears() {
    let mut rig = Rig::new("later/app.log", |_| {});
    assert_eq!(rig.read(), Vec::<String>::new());
    assert!(rig.engine.trouble().unwrap().contains("no such file"), "{:?}", rig.engine.trouble());
    rig.append("later/app.log", "here\n");
    assert_eq!(rig.read(), ["here"]);
    assert_eq!(rig.engine.trouble(), None);
}

#[test]
fn compressed_rotations_that_match_the_pattern_are_left_alone() {
    let mut rig = Rig::new("app.log*", |_| {});
    rig.append("app.log.2.gz", b"\x1f\x8b\x08\x00garbage\ngarbage\n");
    rig.append("app.log", "one\n");
    assert_eq!(rig.read(), ["one"]);
    assert_eq!(rig.engine.trouble(), None);
}

#[test]
fn a16_no_more_files_are_held_open_or_followed_than_allowed_and_all_are_read() {
    let mut rig = Rig::new("*.log", |config| (config.max_open_files, config.max_files) = (4, 20));
    for round in 0..3 {
        for file in 0..20 {
            rig.append(&format!("{file:02}.log"), format!("{round}\n"));
        }
        assert_eq!(rig.read().len(), 20);
        assert_eq!(rig.engine.files(), (20, 4));
    }
    // Renamed while not open: found again by inode.
    for file in 0..20 {
        rig.append(&format!("{file:02}.log"), "last\n");
        rig.rename(&format!("{file:02}.log"), &format!("{file:02}.old"));
    }
    assert_eq!(rig.read(), vec!["last"; 20]);
    for file in 20..45 {
        rig.append(&format!("{file:02}.log"), "x\n");
    }
    rig.read();
    let trouble = rig.engine.trouble().unwrap();
    assert!(trouble.contains("25 files beyond max_files"), "{trouble}");
    assert_eq!(rig.after(seconds(61)).len(), 0);
    assert_eq!(rig.read().len(), 20, "room is used as soon as there is some");
}

#[test]
fn a_deleted_file_that_was_not_held_open_is_a_loss_that_is_counted_and_told() {
    let mut rig = Rig::new("*.log", |config| config.max_open_files = 1);
    rig.append("a.log", "a\n");
    rig.read();
    rig.append("b.log", "b\n");
    rig.read();
    rig.append("a.log", "lost\n");
    // Seen to have grown, but read errors keep it from being read: as when the descriptor limit is reached.
    rig.engine.tails.values_mut().filter(|tail| tail.name == "a.log").for_each(|tail| {
        tail.file = None;
        tail.seen.as_mut().unwrap().size += 5;
    });
    fs::remove_file(rig.path("a.log")).unwrap();
    rig.read();
    assert_eq!(rig.engine.counts.lost_bytes, 5);
    assert!(rig.engine.trouble().unwrap().contains("a.log: deleted with 5 bytes unread"));
}

#[test]
fn a_busy_file_does_not_starve_the_others_and_a_step_is_bounded() {
    let mut rig = Rig::new("*.log", |config| config.batch = opspilot_kernel::config::Size(64 << 10));
    rig.append("big.log", long(1).repeat(20_000));
    rig.append("small.log", "small\n");
    assert!(rig.step(true));
    assert!(rig.lines.len() < 2000, "{}", rig.lines.len());
    assert!(rig.step(true));
    assert!(rig.texts().contains(&"small"));
    rig.read();
    assert_eq!(rig.lines.len(), 20_001);
}

#[test]
fn two_entries_for_one_file_read_it_once() {
    let mut rig = Rig::new("app.log", |config| {
        let mut other = config.files[0].clone();
        other.path = other.path.replace("app.log", "*.log");
        other.source = Some("all".into());
        config.files.push(other);
    });
    rig.append("app.log", "one\n");
    rig.append("web.log", "two\n");
    assert_eq!(rig.read(), ["one", "two"]);
    assert_eq!((rig.lines[0].source.as_str(), rig.lines[1].source.as_str()), ("app", "all"));
    fs::hard_link(rig.path("app.log"), rig.path("again.log")).unwrap();
    assert_eq!(rig.read(), Vec::<String>::new());
}

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
