//! Each module, started, fed, stopped and started again.

use std::{fs, io::Write, path::Path, time::Duration};

use serde_json::json;

use crate::support::{Service, in_system};

fn append(path: &Path, text: &str) {
    fs::OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn files_are_followed_through_rotation_and_a_restart_of_the_service() {
    in_system(|| async {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("app.log");
        let config = json!({ "files": [{ "path": log }], "poll": "20ms" });
        append(&log, "one\n");
        let service = Service::open(&dir.path().join("data"));
        let tail = service.start("connector.fileTail", config.clone());
        service.until(|stored| stored == ["one"]).await;
        append(&log, "two\n");
        fs::rename(&log, dir.path().join("app.log.1")).unwrap();
        append(&log, "three\n");
        service.until(|stored| stored == ["one", "two", "three"]).await;
        tail.stop().await;
        service.close().await;

        append(&log, "four\n");
        fs::rename(&log, dir.path().join("app.log.2")).unwrap();
        append(&log, "five\n");
        let service = Service::open(&dir.path().join("data"));
        let _tail = service.start("connector.fileTail", config);
        service.until(|stored| stored == ["one", "two", "three", "four", "five"]).await;
        service.close().await;
    });
}

#[test]
fn the_notice_of_a_change_makes_reading_prompt_though_the_poll_is_slow() {
    in_system(|| async {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("app.log");
        append(&log, "one\n");
        let service = Service::open(&dir.path().join("data"));
        let _tail = service.start("connector.fileTail", json!({ "files": [{ "path": log }], "poll": "1h" }));
        service.until(|stored| stored.len() == 1).await;
        append(&log, "two\n");
        service.until(|stored| stored == ["one", "two"]).await;
        service.close().await;
    });
}

#[test]
fn a_configuration_with_problems_does_not_start_and_names_them_all() {
    in_system(|| async {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::open(&dir.path().join("data"));
        let entry = opspilot_connectors::MODULES.iter().find(|entry| entry.id.as_str() == "connector.fileTail").unwrap();
        let config = json!({ "files": [{ "path": dir.path() }, { "path": "/x/*.log", "multiline": { "start": "(" } }] });
        let problems = (entry.check)(config.clone());
        let places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(places, ["/files/0/path", "/files/1/multiline/start"]);
        assert!((entry.start)(&service.ctx, config).is_err());
        service.close().await;
    });
}

#[test]
fn the_host_is_measured_without_any_configuration() {
    in_system(|| async {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::open(&dir.path().join("data"));
        let metrics = service.start("connector.metrics", json!({ "interval": "1s" }));
        let names = ["memory_percent", "memory_used_bytes", "load_1m", "load_5m", "load_15m", "cpu_percent"];
        service.until(|stored| names.iter().all(|name| stored.iter().any(|stored| stored == name))).await;
        // A second start in the same process takes the metrics over.
        metrics.stop().await;
        let _metrics = service.start("connector.metrics", json!({}));
        tokio::time::timeout(Duration::from_secs(5), service.close()).await.unwrap();
    });
}
