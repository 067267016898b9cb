//! What was acknowledged survives whatever ends the process, and is on the disk before anybody is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value as Json, json};

#[cfg(feature = "failpoints")]
use crate::common::long;
use crate::common::{Home, PATIENCE, Service, has_tool, until};

/// Only the intake writes, apart from the ticks.
const INTAKE_ONLY: &str = "\
limits: {requests: {read: 10000000, write: 10000000}}
modules:
  connector.metrics: {enabled: false}
  detector.regex: {enabled: false}
  detector.logTemplate: {enabled: false}
  detector.threshold: {enabled: false}
  detector.alert: {enabled: false}
";

/// Sends a body as it is; `None` if there was no answer.
async fn post(service: &Service, token: &str, key: Option<&str>, body: &Json) -> Option<u16> {
    let mut request = service.http.post(format!("{}/api/events", service.url)).bearer_auth(token).json(body);
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    Some(request.send().await.ok()?.status().as_u16())
}

#[cfg(feature = "failpoints")]
mod points {
    use std::os::unix::process::ExitStatusExt;

    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::story::RULES;

    const LINES: usize = 10;

    /// One client that repeats what was not acknowledged, as a client should.
    struct Client {
        name: usize,
        acknowledged: u64,
    }

    impl Client {
        fn batch(name: usize, number: u64) -> Json {
            let line = |line| match line {
                0 => format!("payment failed for order {number} {name}/{number}/{line}"),
                _ => format!("fine {name}/{number}/{line}"),
            };
            (0..LINES).map(|number| json!({ "source": "shop", "message": line(number) })).collect()
        }

        /// Sends until there is no answer; whether something was under way then.
        async fn send(&mut self, service: &Service, token: &str) -> bool {
            for _ in 0..1000 {
                let number = self.acknowledged;
                let key = format!("batch-{}-{number}", self.name);
                match post(service, token, Some(&key), &Self::batch(self.name, number)).await {
                    Some(202) => self.acknowledged += 1,
                    Some(status) => panic!("{status} for {key}"),
                    None => return true,
                }
            }
            false
        }
    }

    async fn dies_at(point: &str, rounds: u64, dice: &mut StdRng) {
        let home = Home::new(&format!("limits: {{requests: {{read: 10000000, write: 10000000}}}}\n{RULES}"));
        let service = home.start().await;
        let token = service.token.clone().unwrap();
        service.stop().await;
        let mut clients = [0, 1, 2].map(|name| Client { name, acknowledged: 0 });
        let (mut hits, mut under_way) = (0, 0);
        for _ in 0..rounds {
            let faults = format!("{point}={}*off->panic(abort)", dice.random_range(0..40));
            let mut service = home.spawn(&[("FAILPOINTS", &faults)]);
            // some points are met before it listens
            if service.listening().await {
                let cut = futures_util::future::join_all(clients.iter_mut().map(|client| client.send(&service, &token))).await;
                under_way += u64::from(cut.contains(&true));
            }
            let status = service.ended().await;
            assert_eq!(status.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{faults}: {status}");
            hits += 1;
        }
        assert!(under_way > 0, "{point}: nothing was under way at any hit");
        let service = home.start().await;
        let before: Vec<String> = service.messages().await;
        // what was repeated with its key after a restart is there once
        let mut batches: BTreeMap<String, usize> = BTreeMap::new();
        for message in &before {
            *batches.entry(message.split(' ').next_back().unwrap().rsplit_once('/').unwrap().0.to_owned()).or_default() += 1;
        }
        let halves: Vec<_> = batches.iter().filter(|(_, lines)| **lines != LINES).collect();
        let lost: Vec<String> = clients
            .iter()
            .flat_map(|client| (0..client.acknowledged).map(|number| format!("{}/{number}", client.name)))
            .filter(|batch| !batches.contains_key(batch))
            .collect();
        // and each has its effect once
        let matches = u64::try_from(batches.len()).unwrap();
        let counted = until("every match to be counted", async || {
            let counted: u64 = service.incidents().await.iter().filter_map(|incident| incident["occurrences"].as_u64()).sum();
            (counted >= matches).then_some(counted)
        })
        .await;
        eprintln!(
            "{point}: rounds {rounds} hits {hits} acknowledged {} stored {} lost {} halves or doubles {} matches {matches} counted {counted}",
            clients.iter().map(|client| client.acknowledged).sum::<u64>(),
            batches.len(),
            lost.len(),
            halves.len()
        );
        assert!(lost.is_empty(), "{point}: lost {lost:?}");
        assert!(halves.is_empty(), "{point}: not whole, or twice: {halves:?}");
        service.stop().await;
        let service = home.start().await;
        let counted: u64 = service.incidents().await.iter().filter_map(|incident| incident["occurrences"].as_u64()).sum();
        assert_eq!(counted, matches, "{point}: each effect once");
        service.stop().await;
    }

    #[tokio::test]
    async fn a2_an_abort_at_each_point_of_a_commit_loses_nothing_and_repeats_nothing() {
        let seed = std::env::var("OPSPILOT_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20260315);
        println!("seed {seed}");
        let mut dice = StdRng::seed_from_u64(seed);
        let rounds = if long() { 200 } else { 4 };
        for point in ["ledger::after_insert", "ledger::before_commit", "ledger::after_commit_before_ack"] {
            dies_at(point, rounds, &mut dice).await;
        }
    }
}

/// What a trace of system calls says about the order of storing and answering.
#[derive(Debug, Default, PartialEq)]
struct Order {
    answers: u64,
    violations: Vec<usize>,
}

/// The descriptor, with what it is, that a call names first.
fn descriptor(arguments: &str) -> &str {
    arguments.split_once('>').map_or("", |(descriptor, _)| descriptor)
}

/// For each 202: after the last bytes of its request were read something was written to the write-ahead log,
/// and a sync of that log which began after it had returned, all before the answer was begun.
fn order(trace: &str) -> Order {
    let mut order = Order::default();
    let mut unfinished: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    let mut read: BTreeMap<String, usize> = BTreeMap::new();
    let mut written: Vec<usize> = Vec::new();
    let mut synced: Vec<(usize, usize)> = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        // a call that another one interrupted in the trace is two lines: when it began, and when it returned
        let (began, whole) = if let Some(resumed) = call.strip_prefix("<... ") {
            let Some((began, start)) = unfinished.remove(thread) else { continue };
            (began, format!("{start}{}", resumed.split_once("resumed>").map_or("", |(_, rest)| rest)))
        } else {
            (at, call.to_owned())
        };
        let Some((name, arguments)) = whole.split_once('(') else { continue };
        if began == at && matches!(name, "write" | "writev" | "sendto" | "sendmsg") && arguments.contains("HTTP/1.1 202") {
            order.answers += 1;
            let request = read.get(descriptor(arguments)).copied().unwrap_or(usize::MAX);
            let stored = synced.iter().rev().any(|(begun, _)| written.iter().rev().any(|write| request < *write && write < begun));
            if !stored {
                order.violations.push(at + 1);
            }
        }
        if call.ends_with("<unfinished ...>") {
            unfinished.insert(thread, (at, call.trim_end_matches("<unfinished ...>").to_owned()));
            continue;
        }
        let failed = whole.rsplit_once(" = ").is_none_or(|(_, result)| result.starts_with('-') || result.starts_with('?'));
        let log = descriptor(arguments).ends_with("-wal");
        match name {
            _ if failed => {}
            "read" | "recvfrom" | "readv" | "recvmsg" if !whole.ends_with(" = 0") => {
                read.insert(descriptor(arguments).to_owned(), at);
            }
            "pwrite64" | "pwritev" | "write" if log => written.push(at),
            "fsync" | "fdatasync" if log => synced.push((began, at)),
            _ => {}
        }
    }
    order
}

#[test]
fn a4_a_trace_in_the_wrong_order_is_seen() {
    let read = "7 recvfrom(9<socket:[1]>, \"POST /api/events HTTP/1.1\\r\\n\"..., 8192, 0, NULL, NULL) = 200";
    let write = "8 pwrite64(5</d/a.db-wal>, \"x\", 1, 0) = 1";
    let (begin, end) = ("8 fdatasync(5</d/a.db-wal> <unfinished ...>", "8 <... fdatasync resumed>) = 0");
    let sync = "8 fdatasync(5</d/a.db-wal>) = 0";
    let answer = "7 sendto(9<socket:[1]>, \"HTTP/1.1 202 Accepted\\r\\n\"..., 99, MSG_NOSIGNAL, NULL, 0) = 99";
    let violations = |lines: &[&str]| order(&lines.join("\n")).violations.len();
    assert_eq!(order(&[read, write, begin, end, answer].join("\n")), Order { answers: 1, violations: Vec::new() });
    assert_eq!(violations(&[read, write, sync, answer]), 0);
    assert_eq!(violations(&[read, answer]), 1, "nothing was stored");
    assert_eq!(violations(&[write, sync, read, answer]), 1, "what was synced is older than the request");
    assert_eq!(violations(&[read, sync, write, answer]), 1, "written after the sync");
    assert_eq!(violations(&[read, write, begin, answer, end]), 1, "the sync had not returned");
    assert_eq!(violations(&[read, begin, write, end, answer]), 1, "the sync had begun before the write");
    assert_eq!(violations(&[read, write, &sync.replace("= 0", "= -1 EIO (x)"), answer]), 1, "the sync failed");
    assert_eq!(violations(&[read, write, sync, answer, read, answer]), 1, "each request has its own");
}

#[tokio::test]
async fn a4_no_202_leaves_before_its_signals_are_on_the_disk() {
    if !has_tool("strace") {
        return;
    }
    let home = Home::new(INTAKE_ONLY);
    let file = home.path("trace");
    let calls = "trace=fsync,fdatasync,pwrite64,write,writev,sendto,sendmsg,read,readv,recvfrom,recvmsg";
    // -D: the service is our child, the tracer beside it
    let wrapper = ["strace", "-D", "-f", "-y", "-s", "48", "-e", calls, "-o", file.to_str().unwrap()];
    let mut service = home.spawn_under(&wrapper, &[]);
    service.ready().await;
    let token = service.log_in("admin", crate::common::PASSWORD).await;
    let sent = if crate::common::long() { 10_000 } else { 300 };
    for number in 0..sent {
        let status = post(&service, &token, None, &json!({ "source": "shop", "message": format!("line {number}") })).await;
        assert_eq!(status, Some(202));
    }
    service.stop().await;
    let trace = until("the end of the trace", async || {
        let trace = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        trace.lines().last()?.contains("+++ exited with").then_some(trace)
    })
    .await;
    let order = order(&trace);
    println!("requests {sent} answers {} violations {}", order.answers, order.violations.len());
    assert_eq!(order.answers, sent);
    let told: Vec<_> = order.violations.iter().filter_map(|line| trace.lines().nth(line - 1)).take(5).collect();
    assert!(order.violations.is_empty(), "{told:?}");
}

/// Bytes of address space that the process has.
fn address_space(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a14_running_out_of_memory_loses_nothing_that_was_acknowledged() {
    use rustix::process::{Resource, Rlimit, prlimit};

    let home = Home::new(INTAKE_ONLY);
    let service = home.start().await;
    let token = service.token.clone().unwrap();
    service.stop().await;
    let mut acknowledged = BTreeSet::new();
    let (mut died, mut number) = (0, 0);
    for headroom in [64_u64, 32, 16, 8] {
        let mut service = home.spawn(&[]);
        service.ready().await;
        let limit = address_space(&service) + (headroom << 20);
        prlimit(Some(service.pid()), Resource::As, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();
        // small ones between the big ones, so that something is acknowledged right up to the end
        let mut sends = Vec::new();
        for offset in 0..24 {
            let (service, token, name) = (&service, &token, format!("line {}", number + offset));
            let padding = if offset % 3 == 0 { 0 } else { 3000 };
            let events: Json = (0..padding)
                .map(|filler| json!({ "source": "filler", "message": format!("{filler} {}", "x".repeat(1800)) }))
                .chain([json!({ "source": "shop", "message": name })])
                .collect();
            sends.push(async move { (post(service, token, None, &events).await, name) });
        }
        number += 24;
        for (status, name) in futures_util::future::join_all(sends).await {
            if status == Some(202) {
                acknowledged.insert(name);
            }
        }
        // either it is gone, or it said no and is there
        let gone = service.http.get(format!("{}/api/livez", service.url)).timeout(Duration::from_secs(10)).send().await.is_err();
        if gone {
            let status = tokio::time::timeout(PATIENCE, service.ended()).await.unwrap();
            assert_ne!(status.code(), Some(0), "it did not end in order");
            died += 1;
        }
        println!("headroom {headroom} MiB: {} acknowledged so far, {}", acknowledged.len(), if gone { "died" } else { "lived" });
    }
    assert!(died > 0, "no limit was small enough to mean anything");
    assert!(!acknowledged.is_empty());
    let service = home.start().await;
    let stored: BTreeSet<String> = lines(&service).await;
    let lost: Vec<_> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty(), "lost {lost:?}");
    service.stop().await;
}

/// The messages of the source `shop`.
async fn lines(service: &Service) -> BTreeSet<String> {
    let found = service.get("/api/signals?source=shop&limit=500").await;
    assert!(found["next_cursor"].is_null(), "one page");
    found["items"].as_array().unwrap().iter().map(|item| item["message"].as_str().unwrap().to_owned()).collect()
}
