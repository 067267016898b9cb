//! Storage that is held up, that fails, or that is full: what was accepted stays, the rest is told so, and it heals.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use diesel::{Connection as _, SqliteConnection, connection::SimpleConnection as _};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;

use crate::common::{Home, Service, until};

/// Nothing but the intake writes, apart from the ticks.
const INTAKE_ONLY: &str = "\
ledger: {queue: 2}
modules:
  connector.metrics: {enabled: false}
  detector.regex: {enabled: false}
  detector.logTemplate: {enabled: false}
  detector.threshold: {enabled: false}
  detector.alert: {enabled: false}
";

/// The database's one place to write, taken by somebody else: the writer waits for it, five seconds at most.
struct Held(SqliteConnection);

impl Held {
    fn take(home: &Home) -> Held {
        let mut held = Held(SqliteConnection::establish(home.data().join("opspilot.db").to_str().unwrap()).unwrap());
        held.0.batch_execute("PRAGMA busy_timeout=5000; PRAGMA wal_autocheckpoint=0; BEGIN IMMEDIATE;").unwrap();
        held
    }

    fn give_back(mut self) {
        self.0.batch_execute("ROLLBACK;").unwrap();
    }
}

/// An answer of the intake: the status, what `Retry-After` and `Content-Type` say, and the body.
#[derive(Debug)]
struct Answer {
    status: u16,
    retry_after: Option<u64>,
    kind: String,
    body: Json,
}

/// Sends one line of the source `shop`.
fn send(service: &Service, message: &str) -> impl Future<Output = Answer> + use<> {
    let request = service.http.post(format!("{}/api/events", service.url)).bearer_auth(service.token.as_deref().unwrap());
    let request = request.json(&json!({ "source": "shop", "message": message }));
    async move {
        let answer = request.send().await.unwrap();
        let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (status, retry_after, kind) = (answer.status().as_u16(), header("retry-after"), header("content-type").unwrap());
        Answer { status, retry_after: retry_after.map(|value| value.parse().unwrap()), kind, body: answer.json().await.unwrap() }
    }
}

/// The health report, which is a 503 while the service is not well.
async fn health(service: &Service) -> (u16, Json) {
    service.call(reqwest::Method::GET, "/api/health", service.token.as_deref(), None).await
}

/// That a refusal is a problem document which says when to come again.
fn assert_says_when(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.body["status"].as_u64()), (status, Some(u64::from(status))), "{answer:?}");
    assert_eq!((answer.kind.as_str(), &answer.body["code"]), ("application/problem+json", &json!(code)), "{answer:?}");
    assert!(answer.retry_after.is_some_and(|seconds| (1..=60).contains(&seconds)), "{answer:?}");
}

#[tokio::test]
async fn s12_a_full_queue_is_429_until_it_drains_and_nothing_it_holds_is_lost() {
    let home = Home::new(INTAKE_ONLY);
    let service = home.start().await;
    assert_eq!(send(&service, "before").await.status, 202);
    let held = Held::take(&home);
    // what is sent while the writer waits is waited for by its sender, until there is no more room
    let mut waiting = JoinSet::new();
    let mut refused = Vec::new();
    let mut sent = 0;
    while refused.is_empty() {
        sent += 1;
        assert!(sent < 100, "the queue of two is never full");
        let message = format!("line {sent}");
        let answer = send(&service, &message);
        waiting.spawn(async move { (message, answer.await) });
        while let Ok(Some(answered)) = tokio::time::timeout(Duration::from_millis(100), waiting.join_next()).await {
            refused.push(answered.unwrap());
        }
    }
    for (_, answer) in &refused {
        assert_says_when(answer, 429, "busy");
    }
    assert!(waiting.len() >= 2, "the queue holds {}", waiting.len());
    assert_eq!(service.messages().await, ["before"], "nothing is read that was not acknowledged");
    held.give_back();
    let mut stored = vec!["before".to_owned()];
    for (message, answer) in waiting.join_all().await {
        assert_eq!((answer.status, &answer.body["accepted"]), (202, &json!(1)), "{message}: {answer:?}");
        stored.push(message);
    }
    assert_eq!(send(&service, "after").await.status, 202);
    stored.push("after".to_owned());
    let mut found = service.messages().await;
    found.sort_unstable();
    stored.sort_unstable();
    assert_eq!(found, stored, "all that was accepted, once, and nothing that was refused");
    // what had to wait for the writer may have been seen waiting
    service.healthy().await;
    service.stop().await;
}

#[tokio::test]
async fn a8_while_writes_fail_the_intake_is_503_reads_go_on_and_it_heals_by_itself() {
    let home = Home::new(INTAKE_ONLY);
    // a write beyond the limit is then an error and not the end
    let mut service = home.spawn_under(&["sh", "-c", r#"trap "" XFSZ; exec "$0" "$@""#], &[]);
    service.ready().await;
    service.token = Some(service.log_in("admin", crate::common::PASSWORD).await);
    assert_eq!(send(&service, "before").await.status, 202);
    let maximum = getrlimit(Resource::Fsize).maximum;
    let may_write = |bytes| prlimit(Some(service.pid()), Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
    may_write(Some(1));
    let refused = send(&service, "refused").await;
    assert_says_when(&refused, 503, "storage-unavailable");
    assert_says_when(&send(&service, "refused, too").await, 503, "storage-unavailable");
    assert_eq!(service.messages().await, ["before"], "what was accepted is there");
    let (ready, why) = service.call(reqwest::Method::GET, "/api/readyz", None, None).await;
    assert_eq!(ready, 503, "{why}");
    let (code, report) = health(&service).await;
    assert_eq!((code, report["status"].as_str()), (503, Some("unhealthy")), "{report}");
    may_write(maximum);
    until("storage to take writes again", async || (send(&service, "after").await.status == 202).then_some(())).await;
    service.healthy().await;
    assert_eq!(service.messages().await, ["before", "after"]);
    service.stop().await;
    let service = home.start().await;
    assert_eq!(service.messages().await, ["before", "after"], "also after a restart");
    service.stop().await;
}

#[tokio::test]
async fn a13_a_stop_in_which_the_ledger_cannot_close_ends_with_70_and_loses_nothing() {
    let home = Home::new(INTAKE_ONLY);
    let mut service = home.start().await;
    assert_eq!(send(&service, "before").await.status, 202);
    let held = Held::take(&home);
    service.signal(Signal::TERM);
    let status = service.ended().await;
    assert_eq!(status.code(), Some(70), "log:\n{}", service.log.lines().join("\n"));
    let left = |line: &String| line.contains("a part did not stop in time") && line.contains("\"ledger\"");
    assert!(service.log.lines().iter().any(left), "it is the ledger that took too long");
    assert!(!service.log.has("the ordered stop took too long"), "and the stop went on behind it");
    held.give_back();
    let service = home.start().await;
    assert_eq!(service.messages().await, ["before"]);
    let audit = service.get("/api/audit?limit=500").await;
    let unclean = audit["items"].as_array().unwrap().iter().filter(|entry| entry.to_string().contains("SYS03W")).count();
    assert_eq!(unclean, 1, "the next start knows that the stop was none: {audit}");
    service.stop().await;
}

/// The service on a file system of its own, in a mount namespace of its own; nothing where the machine allows no mounts.
struct SmallDisk {
    home: Home,
    service: Service,
}

impl SmallDisk {
    async fn start(config: &str, mebibytes: u32) -> Option<SmallDisk> {
        let home = Home::new(config);
        fs::create_dir(home.data()).unwrap();
        let script = format!(
            r#"mount -t tmpfs -o size={mebibytes}m none "{}" || {{ echo no mounts >&2; exit 1; }}; exec "$0" "$@""#,
            home.data().display()
        );
        if !crate::common::has_tool("unshare") {
            return None;
        }
        let mut service = home.spawn_under(&["unshare", "-rm", "sh", "-c", &script], &[]);
        if !service.listening().await {
            let log = service.log.lines().join("\n");
            let allowed = !(log.contains("no mounts") || log.contains("unshare failed"));
            assert!(!allowed && std::env::var_os("OPSPILOT_REQUIRE_TOOLS").is_none(), "{log}");
            eprintln!("SKIPPED: this machine allows no mounts: {log}");
            return None;
        }
        service.ready().await;
        service.token = Some(service.log_in("admin", crate::common::PASSWORD).await);
        Some(SmallDisk { home, service })
    }

    /// The data directory as the service sees it.
    fn data(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.service.pid().as_raw_nonzero()));
        root.join(self.home.data().strip_prefix("/").unwrap())
    }
}

fn free(path: &Path) -> u64 {
    let disk = rustix::fs::statvfs(path).unwrap();
    disk.f_bavail * disk.f_frsize
}

#[tokio::test]
async fn a6_after_a_full_disk_signals_are_taken_again_with_the_headroom_and_after_the_time_that_were_configured() {
    const MIB: usize = 1 << 20;
    let config = INTAKE_ONLY.replace("queue: 2", "headroom: 3MiB, heal_after: 2s");
    let Some(disk) = SmallDisk::start(&config, 64).await else { return };
    let service = &disk.service;
    assert_eq!(send(service, "before").await.status, 202);
    let data = disk.data();
    let fill = |name: &str, bytes: u64| fs::write(data.join(name), vec![1; usize::try_from(bytes).unwrap()]).unwrap();
    fill("ballast", free(&data) - 2 * 4096);
    let filler = "x".repeat(MIB / 4);
    let refused = until("the disk to be full", async || Some(send(service, &filler).await).filter(|answer| answer.status != 202)).await;
    assert_says_when(&refused, 503, "storage-unavailable");
    let why = format!("signals are taken again once {} bytes are free", (16 + 3) * MIB);
    until("what is missing in the health report", async || health(service).await.1.to_string().contains(&why).then_some(())).await;
    assert!(service.messages().await.contains(&"before".to_owned()), "reads go on");
    fs::remove_file(data.join("ballast")).unwrap();
    let freed = tokio::time::Instant::now();
    until("storage to take writes again", async || (send(service, "after").await.status == 202).then_some(())).await;
    let took = freed.elapsed();
    println!("A6: took writes again {took:?} after there was room");
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert_eq!(fs::metadata(data.join("reserve")).unwrap().len(), 16 << 20, "the reserve is there again");
    service.healthy().await;
    let stored = service.messages().await;
    assert_eq!((stored.first().unwrap().as_str(), stored.last().unwrap().as_str()), ("before", "after"));
    disk.service.stop_unverified("its file system went with its mount namespace").await;
}
