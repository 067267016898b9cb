//! While the ledger takes nothing, files wait: A7 as a connector sees it.

use std::{fs, io::Write, time::Duration};

use opspilot_fault_vfs::{Failure, Fault, FaultVfs, Op};
use serde_json::json;

use crate::support::{Service, in_system};

#[test]
fn a7_lines_written_while_storage_refuses_are_stored_once_when_it_recovers() {
    in_system(|| async {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("app.log");
        let vfs = FaultVfs::register("backpressure").unwrap();
        let service = Service::open_on(&dir.path().join("data"), Some(vfs.name()));
        let _tail = service.start("connector.fileTail", json!({ "files": [{ "path": log }], "poll": "10ms" }));
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
        writeln!(file, "0").unwrap();
        service.until(|stored| stored.len() == 1).await;

        vfs.arm(Fault { op: Op::Write, nth: 1, failure: Failure::ReadOnly, lasting: true });
        (1..100).for_each(|n| writeln!(file, "{n}").unwrap());
        let mut health = service.ledger.watch_storage();
        tokio::time::timeout(Duration::from_secs(10), health.wait_for(|health| !health.is_healthy())).await.unwrap().unwrap();
        assert!(vfs.fired() > 0);
        // Rotated away in the meantime, and written on.
        fs::rename(&log, dir.path().join("app.log.1")).unwrap();
        fs::write(&log, (100..200).map(|n| format!("{n}\n")).collect::<String>()).unwrap();
        assert_eq!(service.stored().len(), 1);
        vfs.heal();
        let stored = service.until(|stored| stored.len() >= 200).await;
        assert_eq!(stored, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
        service.close().await;
    });
}
