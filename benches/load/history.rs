//! The same with a past: memory, time to ready, latency and lists with a million signals and 100,000 incidents stored.

use std::time::{Duration, Instant};

use crate::{Times, bodies, feed, grouped, http::request, service::Service, setting};

pub async fn run() {
    let (signals, incidents): (usize, usize) = (setting("SIGNALS", 1_000_000), setting("INCIDENTS", 100_000));
    let mut ready = Times::default();
    for _ in 0..5 {
        let service = Service::start().await;
        ready.add(service.ready);
        service.stop();
    }
    let service = Service::start().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!("\nempty: ready in {:.0} ms (median of 5), idle {:.1} MiB", ready.at(0.5), service.memory().0);

    let mut connection = service.connect().await;
    let pool = bodies::pool(1000, 32);
    for index in 0..signals / 1000 {
        let answer = connection.send(&service.post(&pool[index % pool.len()])).await.expect("an answer");
        assert_eq!(answer.status, 202);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (now, peak) = service.memory();
    println!("after {} signals: {now:.1} MiB, peak {peak:.1} MiB", grouped(signals as f64));

    let begin = Instant::now();
    let numbers: Vec<usize> = (0..incidents).collect();
    for chunk in numbers.chunks(1000) {
        let lines: String =
            chunk.iter().map(|number| format!("{{\"source\":\"past-{number}\",\"message\":\"latency probe\"}}\n")).collect();
        let answer = connection.send(&service.post(lines.as_bytes())).await.expect("an answer");
        assert_eq!(answer.status, 202);
    }
    let wanted = incidents as f64;
    while service.metric("opspilot_incidents_open").await < wanted {
        assert!(begin.elapsed() < Duration::from_secs(600), "the incidents are not there after ten minutes");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!(
        "{} incidents opened in {:.1} s ({} a second)",
        grouped(wanted),
        begin.elapsed().as_secs_f64(),
        grouped(wanted / begin.elapsed().as_secs_f64())
    );

    println!("\n| request, with {} incidents stored | p50 ms | p99 ms |\n|---|---|---|", grouped(wanted));
    for path in [
        "/api/incidents",
        "/api/incidents?limit=500",
        "/api/incidents?severity=critical&status=open",
        "/api/incidents?source=past-77",
        "/api/incidents?q=probe",
    ] {
        let mut times = Times::default();
        let request = request("GET", path, &service.token, "application/json", b"");
        for _ in 0..200 {
            let sent = Instant::now();
            let answer = connection.send(&request).await.expect("an answer");
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            times.add(sent.elapsed());
        }
        println!("| GET {path} | {:.2} | {:.2} |", times.at(0.5), times.at(0.99));
    }
    println!();
    feed::header();
    let mut times = feed::probe(&service, "past", 300, Duration::from_millis(10)).await;
    println!("| with the past stored | {} | {:.2} | {:.2} | {:.2} |", times.0.len(), times.at(0.5), times.at(0.99), times.at(1.0));

    let service = service.again().await;
    println!("\nwith the past stored: ready in {:.0} ms after a stop in order", service.ready.as_secs_f64() * 1000.0);
    let stored = service.stop();
    println!("data directory: {:.1} MiB", stored as f64 / f64::from(1 << 20));
}
