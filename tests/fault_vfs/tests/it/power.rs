//! A3 and its negative control A5: power fails at any moment.

use std::{path::PathBuf, sync::atomic::Ordering};

use opspilot_fault_vfs::Dice;

use crate::support::{Rig, Writer, long, runtime, survey};

/// What many power failures did.
#[derive(Debug, Default)]
struct Toll {
    images: usize,
    /// Images of moments at which something was not synced: only these prove anything.
    at_risk: usize,
    /// Acknowledged lines were missing.
    lost: usize,
    /// The database could not be opened, or was damaged.
    corrupt: usize,
    /// Lines beyond those acknowledged that survived; allowed, but only as a run without a gap.
    beyond: u64,
}

fn power_failures(name: &str, lies: bool, captures: usize, images_each: usize) -> Toll {
    let rig = Rig::new(name);
    rig.vfs.record();
    let ledger = rig.open(&rig.data());
    if lies {
        rig.vfs.lie_on_sync();
    }
    let mut writer = Writer::new(3);
    let promised = writer.promised.clone();
    rig.vfs.capture(11, captures, Box::new(move || promised.load(Ordering::SeqCst)));
    runtime().block_on(async {
        for _ in 0..captures * 3 {
            writer.append(&ledger).await.unwrap();
        }
        ledger.shut_down().await.unwrap();
    });
    drop(ledger);
    let mut toll = Toll::default();
    let mut dice = Dice::new(17);
    let captured = rig.vfs.captured();
    assert!(captured.len() > captures / 2, "only {} moments captured", captured.len());
    for (moment, (acked, recording)) in captured.into_iter().enumerate() {
        for number in 0..images_each {
            let dir: PathBuf = rig.dir.path().join(format!("{moment}-{number}"));
            recording.power_loss(&mut dice, &dir).unwrap();
            toll.images += 1;
            toll.at_risk += usize::from(recording.unsynced() > 0);
            match survey(&dir) {
                Ok(found) => {
                    let count = u64::try_from(found.len()).unwrap();
                    if !(0..acked).all(|line| found.contains(&line)) {
                        toll.lost += 1;
                    } else if lies || found.last().is_none_or(|last| last + 1 == count) {
                        toll.beyond += count - acked;
                    } else {
                        panic!("a gap among what was not acknowledged: {count} lines up to {:?}", found.last());
                    }
                }
                Err(why) => {
                    toll.corrupt += 1;
                    assert!(lies, "moment {moment}, image {number}: {why}");
                }
            }
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
    println!("{name}: {toll:?}");
    toll
}

#[test]
fn a3_after_a_power_failure_everything_acknowledged_is_there_and_the_database_is_sound() {
    let (captures, each) = if long() { (250, 20) } else { (40, 5) };
    let toll = power_failures("a3", false, captures, each);
    assert!(toll.at_risk * 3 > toll.images, "the failures must come while something is unsynced: {toll:?}");
    assert_eq!((toll.lost, toll.corrupt), (0, 0), "{toll:?}");
}

#[test]
fn a5_the_harness_finds_the_loss_when_the_disk_lies_about_syncs() {
    let toll = power_failures("a5", true, 20, 2);
    assert!(toll.lost + toll.corrupt > 0, "the harness is blind: {toll:?}");
}
