//! Files that are renamed, truncated, copied, deleted.

use std::fs;

use super::{Rig, long, seconds};

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
fn compressed_rotations_that_match_the_pattern_are_left_alone() {
    let mut rig = Rig::new("app.log*", |_| {});
    rig.append("app.log.2.gz", b"\x1f\x8b\x08\x00garbage\ngarbage\n");
    rig.append("app.log", "one\n");
    assert_eq!(rig.read(), ["one"]);
    assert_eq!(rig.engine.trouble(), None);
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
    assert!(rig.engine.trouble().unwrap().contains("a.log: deleted while 5 bytes of it were unread"));
}
