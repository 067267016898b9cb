//! Durable ingest: how many events a second are acknowledged, in requests of 1, 10, 100 and 1,000.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{Times, bodies, grouped, seconds, service::Service, setting};

/// What one run came to.
pub struct Rate {
    pub events: u64,
    pub took: Duration,
    pub times: Times,
    pub refused: u64,
}

/// Keeps `connections` busy with bodies of `lines` lines for `span`, at most `ceiling` events a second.
pub async fn load(service: &Service, lines: usize, connections: usize, span: Duration, ceiling: f64) -> Rate {
    let pool = match lines {
        1 => 2048,
        10 => 1024,
        100 => 256,
        _ => 32,
    };
    let requests: Rc<Vec<Vec<u8>>> = Rc::new(bodies::pool(lines, pool).iter().map(|body| service.post(body)).collect());
    let (next, events, refused) = (Rc::new(Cell::new(0_usize)), Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(0_u64)));
    let times = Rc::new(RefCell::new(Times::default()));
    let begin = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let mut connection = service.connect().await;
        let (requests, next, events, refused, times) = (requests.clone(), next.clone(), events.clone(), refused.clone(), times.clone());
        tasks.push(tokio::task::spawn_local(async move {
            while begin.elapsed() < span {
                let index = next.get();
                next.set(index + 1);
                let due = Duration::from_secs_f64((index * lines) as f64 / ceiling);
                if let Some(early) = due.checked_sub(begin.elapsed()) {
                    tokio::time::sleep(early).await;
                }
                let sent = Instant::now();
                let answer = connection.send(&requests[index % requests.len()]).await.expect("an answer");
                match answer.status {
                    202 => events.set(events.get() + lines as u64),
                    429 => refused.set(refused.get() + 1),
                    status => panic!("{status}: {}", String::from_utf8_lossy(&answer.body)),
                }
                times.borrow_mut().add(sent.elapsed());
            }
        }));
    }
    for task in tasks {
        task.await.expect("a connection");
    }
    let times = std::mem::take(&mut *times.borrow_mut());
    Rate { events: events.get(), took: begin.elapsed(), times, refused: refused.get() }
}

pub async fn run() {
    println!("\ndurable ingest over HTTP, NDJSON of about 190 bytes a line, 51 regex rules active, {} s each", seconds().as_secs_f64());
    println!(
        "| events per request | connections | events/s | ack p50 ms | ack p99 ms | bytes on disk per event | service cores | peak RSS MiB | 429 | detectors behind at the end |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (lines, connections) in [(1, 32), (1, 128), (10, 32), (100, 32), (1000, 16)] {
        let connections = setting("CONNECTIONS", connections);
        let service = Service::start().await;
        let warm = load(&service, lines, connections, Duration::from_secs(1), f64::INFINITY).await;
        let before = service.cpu();
        let mut rate = load(&service, lines, connections, seconds(), f64::INFINITY).await;
        let cores = (service.cpu() - before) / rate.took.as_secs_f64();
        let behind = service.metric("opspilot_queue_depth{queue=\"detector.regex\"").await;
        let (_, peak) = service.memory();
        let stored = service.stop();
        println!(
            "| {lines} | {connections} | {} | {:.2} | {:.2} | {:.1} | {cores:.2} | {peak:.0} | {} | {} |",
            grouped(rate.events as f64 / rate.took.as_secs_f64()),
            rate.times.at(0.5),
            rate.times.at(0.99),
            stored as f64 / (warm.events + rate.events) as f64,
            rate.refused + warm.refused,
            grouped(behind),
        );
    }
}
