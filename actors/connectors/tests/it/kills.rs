//! A1 for files: a process that follows a log is killed at any moment, over and over; no line is lost or repeated.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;

use crate::support::{Service, in_system};

/// Names the directory in which the child works; without it the child's entry does nothing.
const DIR: &str = "OPSPILOT_TEST_KILLS_DIR";

fn config(dir: &Path) -> serde_json::Value {
    json!({ "files": [{ "path": dir.join("app.log"), "multiline": { "start": "^line", "timeout": "10ms" } }], "poll": "10ms", "batch": "4KiB" })
}

#[test]
fn child_entry_follow_until_killed() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    in_system(|| async {
        let service = Service::open(&dir.join("data"));
        let _tail = service.start("connector.fileTail", config(&dir));
        fs::write(dir.join("ready"), "").unwrap();
        std::future::pending::<()>().await;
    });
}

/// A sequence that is the same every time: splitmix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn a1_kill_9_at_random_moments_neither_loses_nor_repeats_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("app.log");
    let cycles = if std::env::var_os("OPSPILOT_LONG").is_some() { 300 } else { 12 };
    let mut seed = 42;
    let (mut written, mut unsettled) = (0_u32, 0);
    let mut progress = 0;
    let mut rotation = 0;
    for cycle in 0.. {
        // A slow machine may need more cycles until the kills have hit something.
        if cycle >= cycles && ((unsettled > 0 && rotation > 0) || cycle > 100) {
            break;
        }
        drop(fs::remove_file(dir.path().join("ready")));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kills::child_entry_follow_until_killed"])
            .env(DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.unwrap();
        while !dir.path().join("ready").exists() {
            wait(Duration::from_millis(1));
        }
        // Written in bursts while the child reads, until a moment that the seed decides; then the axe.
        let bursts = 5 + random(&mut seed) % 40;
        for _ in 0..bursts {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
            let lines = random(&mut seed) % 200;
            let text: String = (0..lines)
                .map(|n| format!("line {} of the story\n  and what belongs to it\n", written + u32::try_from(n).unwrap()))
                .collect();
            file.write_all(text.as_bytes()).unwrap();
            written += u32::try_from(lines).unwrap();
            wait(Duration::from_millis(random(&mut seed) % 12));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let (stored, behind) = look(dir.path());
        unsettled += u32::from(behind > 0 && stored > progress);
        progress = stored;
        // Renamed while nobody looks, sometimes; only a file that is known can be found again.
        if cycle % 3 == 2 && stored > 0 && known(dir.path(), &log) {
            rotation += 1;
            fs::rename(&log, dir.path().join(format!("app.log.{rotation}"))).unwrap();
        }
    }
    assert!(unsettled > 0, "some kills came while lines were on their way");
    assert!(rotation > 0, "the log was rotated");
    in_system(|| async {
        let service = Service::open(&dir.path().join("data"));
        let _tail = service.start("connector.fileTail", config(dir.path()));
        let stored = service.until(|stored| stored.len() >= usize::try_from(written).unwrap()).await;
        service.close().await;
        let mut numbers: Vec<u32> = stored.iter().map(|text| text.split(' ').nth(1).unwrap().parse().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..written).collect::<Vec<_>>(), "each line once");
        assert!(stored.iter().all(|text| text.ends_with("\n  and what belongs to it")));
    });
}

/// How many records are stored, and how many bytes of the log they do not cover.
fn look(dir: &Path) -> (usize, u64) {
    in_system(|| async {
        let service = Service::open(&dir.join("data"));
        let stored = service.stored().len();
        let offset = offsets(&service).into_iter().map(|(_, offset)| offset).max().unwrap_or(0);
        service.close().await;
        (stored, fs::metadata(dir.join("app.log")).map_or(0, |facts| facts.len().saturating_sub(offset)))
    })
}

fn known(dir: &Path, log: &Path) -> bool {
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(log).unwrap());
    in_system(|| async {
        let service = Service::open(&dir.join("data"));
        let known = offsets(&service).iter().any(|(key, _)| key.ends_with(&format!(":{inode:x}")));
        service.close().await;
        known
    })
}

fn offsets(service: &Service) -> Vec<(String, u64)> {
    let snapshots = service.ledger.read_blocking(|reader| reader.snapshots("connector.fileTail")).unwrap();
    let offset = |blob: &[u8]| serde_json::from_slice::<serde_json::Value>(blob).ok()?["offset"].as_u64();
    snapshots.into_iter().filter_map(|snapshot| Some((snapshot.key, offset(&snapshot.blob)?))).collect()
}

/// Lets the child run for a while: its progress is what is waited for, and what it is killed in.
#[allow(clippy::disallowed_methods, reason = "the moment of the kill is the point of the test")]
fn wait(span: Duration) {
    std::thread::sleep(span);
}
