//! A6 on a file system of 32 MiB of its own, in a mount namespace of its own.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use opspilot_kernel::{clock::SystemClock, principal::Actor};
use opspilot_ledger::{FailureReason, Ledger, LedgerError, Limits, Options, Priority, StorageHealth};
use prometheus::Registry;

use crate::support::{lines, messages, runtime};

const NAME: &str = "disk_full::a6_on_a_small_file_system_storage_fails_once_and_heals_once_by_itself";
const DIR: &str = "OPSPILOT_TEST_SMALL_DISK";
const MIB: u64 = 1 << 20;

#[test]
fn a6_on_a_small_file_system_storage_fails_once_and_heals_once_by_itself() {
    if let Some(dir) = std::env::var_os(DIR) {
        return on_the_small_disk(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let script = format!(r#"mount -t tmpfs -o size=32m none "${DIR}" && exec "$0" --exact {NAME} --nocapture"#);
    let run =
        Command::new("unshare").args(["-rm", "sh", "-c", &script]).arg(std::env::current_exe().unwrap()).env(DIR, dir.path()).output();
    let run = match run {
        Ok(run) => run,
        Err(error) => return println!("a6: not run, there is no unshare here: {error}"),
    };
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    if err.contains("unshare failed") || err.contains("mount: ") {
        return println!("a6: not run, this machine allows no mounts: {err}");
    }
    print!("{}", out.lines().filter(|line| line.starts_with("a6")).map(|line| format!("{line}\n")).collect::<String>());
    assert!(run.status.success() && out.contains("1 passed"), "{out}{err}");
}

fn counted(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().filter(|family| family.name() == name);
    family.flat_map(|family| family.get_metric()).map(|metric| metric.get_counter().get_value()).sum()
}

fn on_the_small_disk(dir: &Path) {
    let clock = SystemClock::shared();
    let mut options = Options::new(dir.join("data"), clock.clone());
    options.limits = Limits {
        idle_after: Duration::from_millis(5),
        probe_every: Duration::from_millis(10),
        reserve_bytes: 4 * MIB,
        headroom_bytes: 4 * MIB,
        heal_after: Duration::from_millis(200),
        ..Limits::default()
    };
    let registry = options.registry.clone();
    let transitions = || (counted(&registry, "opspilot_storage_failures_total"), counted(&registry, "opspilot_storage_healed_total"));
    let ledger = Ledger::open(options).unwrap();
    fs::write(dir.join("ballast"), vec![1; usize::try_from(24 * MIB).unwrap()]).unwrap();
    let rt = runtime();
    let (mut next, mut acked) = (0, BTreeSet::new());
    let mut append = |ledger: &Ledger| {
        let appended = rt.block_on(ledger.append(lines("shop", next, 500)))?;
        next += 500;
        acked.extend(appended.first_seq..=appended.last_seq);
        Ok::<_, LedgerError>(())
    };
    let refusal = (0..100_000).find_map(|_| append(&ledger).err()).expect("32 MiB are never full");
    assert!(matches!(&refusal, LedgerError::Unavailable(failure) if failure.reason == FailureReason::Full), "{refusal}");
    let found = messages(&ledger).len();
    for _ in 0..60 {
        // one more look at the disk each, with what was given up free
        rt.block_on(ledger.write(Priority::Control, |tx| tx.module_restarted(&Actor::System, "m", "r"))).unwrap();
        append(&ledger).unwrap_err();
        assert_eq!(messages(&ledger).len(), found, "reads go on");
    }
    let StorageHealth::Failed { failure, .. } = ledger.storage() else { panic!("healed without room") };
    assert!(failure.detail.contains("once 8388608 bytes are free"), "{failure}");
    assert_eq!(transitions(), (1.0, 0.0));
    fs::remove_file(dir.join("ballast")).unwrap();
    let freed = clock.elapsed();
    let mut health = ledger.watch_storage();
    rt.block_on(async { tokio::time::timeout(Duration::from_secs(30), health.wait_for(StorageHealth::is_healthy)).await })
        .expect("it does not recover by itself")
        .unwrap();
    println!("a6: took writes again {} ms after there was room", (clock.elapsed() - freed).as_millis());
    assert_eq!(fs::metadata(dir.join("data/reserve")).unwrap().len(), 4 * MIB, "the reserve is there again");
    for _ in 0..20 {
        append(&ledger).unwrap();
    }
    assert_eq!(transitions(), (1.0, 1.0));
    assert_eq!(messages(&ledger).iter().map(|(seq, _)| *seq).collect::<BTreeSet<_>>(), acked);
}
