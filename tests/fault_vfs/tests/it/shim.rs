//! The shim itself.

use opspilot_fault_vfs::{Dice, FaultVfs};

use crate::support::{Rig, Writer, runtime, stored};

#[test]
fn an_idle_shim_changes_nothing_and_sees_everything() {
    let rig = Rig::new("idle");
    rig.vfs.record();
    let ledger = rig.open(&rig.data());
    let mut writer = Writer::new(1);
    runtime().block_on(async {
        for _ in 0..20 {
            writer.append(&ledger).await.unwrap();
        }
    });
    assert_eq!(stored(&ledger).unwrap(), writer.acked);
    let (writes, syncs) = rig.vfs.counts();
    assert!(writes > 20 && syncs >= 20, "{writes} writes, {syncs} syncs");
    assert_eq!((rig.vfs.fired(), rig.vfs.lied()), (0, 0));
    assert!(FaultVfs::register("idle").is_err(), "a name is registered once");
}

#[test]
fn the_same_seed_gives_the_same_power_loss() {
    let rig = Rig::new("seeded");
    rig.vfs.record();
    let ledger = rig.open(&rig.data());
    let mut writer = Writer::new(1);
    rig.vfs.capture(1, 200, Box::new(|| 0));
    runtime().block_on(writer.append(&ledger)).unwrap();
    let (_, recording) = rig.vfs.captured().into_iter().max_by_key(|(_, recording)| recording.unsynced()).unwrap();
    assert!(recording.unsynced() > 0);
    let image = |name: &str, seed| {
        let dir = rig.dir.path().join(name);
        recording.power_loss(&mut Dice::new(seed), &dir).unwrap();
        std::fs::read_dir(&dir).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(image("a", 1), image("b", 1));
    assert!((2..20).any(|seed| image("c", seed) != image("a", 1)));
}
