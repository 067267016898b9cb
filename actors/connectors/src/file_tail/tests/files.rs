//! Which files are read, and what is said of those that are not.

use std::fs;

use super::super::config::StartAt;
use super::{Rig, long, seconds};

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
    assert!(rig.engine.trouble().unwrap().contains("nothing of that name yet"), "{:?}", rig.engine.trouble());
    rig.append("later/app.log", "here\n");
    assert_eq!(rig.read(), ["here"]);
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
    assert!(trouble.contains("25 files are not read, as more match than max_files"), "{trouble}");
    assert_eq!(rig.after(seconds(61)).len(), 0);
    assert_eq!(rig.read().len(), 20, "room is used as soon as there is some");
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
