//! The live feed: how long a signal takes to a frame, and how many clients hear how much.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{Times, grouped, ingest::load, seconds, service::Service, setting};

/// A client of the feed that understands just enough.
struct Listener {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Listener {
    async fn open(service: &Service, subscribe: &str) -> Listener {
        let mut stream = service.connect().await.upgrade(&service.token).await;
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend((subscribe.len() as u16).to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(subscribe.as_bytes());
        stream.write_all(&frame).await.unwrap();
        let mut listener = Listener { stream, buffer: Vec::new() };
        while !listener.hear().await.expect("a frame").starts_with(b"{\"type\":\"subscribed\"") {}
        listener
    }

    /// The next text; pings are answered on the way.
    async fn hear(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((opcode, payload)) = self.take() {
                match opcode {
                    1 => return Some(payload),
                    8 => return None,
                    9 => self.stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.ok()?,
                    _ => {}
                }
                continue;
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let short = usize::from(*self.buffer.get(1)?);
        let (len, head) = match short {
            126 => (usize::from(u16::from_be_bytes(*self.buffer.get(2..)?.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*self.buffer.get(2..)?.first_chunk()?) as usize, 10),
            len => (len, 2),
        };
        let opcode = self.buffer[0] & 0x0f;
        let payload = self.buffer.get(head..head + len)?.to_vec();
        self.buffer.drain(..head + len);
        Some((opcode, payload))
    }
}

/// Sends signals that open an incident each, one after the other, and waits for each on the feed.
pub async fn probe(service: &Service, tag: &str, count: usize, pause: Duration) -> Times {
    let mut listener = Listener::open(service, r#"{"action":"subscribe","events":["incident.created"]}"#).await;
    let mut connection = service.connect().await;
    let mut times = Times::default();
    for number in 0..count {
        let source = format!("probe-{tag}-{number}");
        let request = service.post(format!(r#"{{"source":"{source}","message":"latency probe"}}"#).as_bytes());
        tokio::time::sleep(pause).await;
        let sent = Instant::now();
        let (answer, ()) = tokio::join!(connection.send(&request), async {
            let heard = timeout(Duration::from_secs(60), async {
                while memchr::memmem::find(&listener.hear().await.expect("the feed goes on"), source.as_bytes()).is_none() {}
            });
            heard.await.expect("the incident on the feed within a minute");
            times.add(sent.elapsed());
        });
        assert_eq!(answer.expect("an answer").status, 202);
    }
    times
}

fn told(what: &str, times: &mut Times) {
    println!("| {what} | {} | {:.2} | {:.2} | {:.2} |", times.0.len(), times.at(0.5), times.at(0.99), times.at(1.0));
}

pub fn header() {
    println!("| signal to incident.created on the WebSocket | probes | p50 ms | p99 ms | max ms |");
    println!("|---|---|---|---|---|");
}

pub async fn latency() {
    println!();
    header();
    let service = Service::start().await;
    drop(probe(&service, "warm", 20, Duration::from_millis(5)).await);
    told("idle", &mut probe(&service, "idle", 300, Duration::from_millis(10)).await);
    let ceiling = setting("LOAD", 100_000.0);
    let (rate, mut times) =
        tokio::join!(load(&service, 1000, 4, seconds(), ceiling), probe(&service, "load", 200, Duration::from_millis(10)));
    told(&format!("while {} events/s are taken in", grouped(rate.events as f64 / rate.took.as_secs_f64())), &mut times);
}

/// How long frames took to all clients.
#[derive(Default)]
struct Heard {
    times: RefCell<Vec<u32>>,
    frames: Cell<u64>,
}

async fn listen(mut listener: Listener, origin: Instant, from: Duration, to: Duration, heard: Rc<Heard>) {
    while let Some(text) = listener.hear().await {
        let now = origin.elapsed();
        // the senders name their source after the time they sent at
        for at in memchr::memmem::find_iter(&text, b"\"t-") {
            let digits = text.get(at + 3..at + 15).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
            let Some(sent) = digits.map(Duration::from_micros) else { continue };
            if sent >= from && sent < to {
                heard.times.borrow_mut().push(u32::try_from((now.saturating_sub(sent)).as_micros()).unwrap_or(u32::MAX));
            }
        }
        heard.frames.set(heard.frames.get() + 1);
        if now > to + Duration::from_secs(1) {
            return;
        }
    }
}

pub async fn fanout() {
    let (clients, rate): (usize, f64) = (setting("SUBSCRIBERS", 1000), setting("EVENTS", 500.0));
    let service = Service::start().await;
    let (before, _) = service.memory();
    let origin = Instant::now();
    let heard = Rc::new(Heard::default());
    let mut listeners = Vec::new();
    for _ in 0..clients {
        listeners.push(Listener::open(&service, r#"{"action":"subscribe","events":["log.ingested"]}"#).await);
    }
    let (idle, _) = service.memory();
    let from = origin.elapsed() + Duration::from_secs(1);
    let to = from + seconds();
    let tasks: Vec<_> =
        listeners.into_iter().map(|listener| tokio::task::spawn_local(listen(listener, origin, from, to, heard.clone()))).collect();
    let sent = Rc::new(Cell::new(0_u64));
    let begin = origin.elapsed();
    let mut senders = Vec::new();
    for _ in 0..8 {
        let mut connection = service.connect().await;
        let (sent, token) = (sent.clone(), service.token.clone());
        senders.push(tokio::task::spawn_local(async move {
            while origin.elapsed() < to {
                let number = sent.get();
                sent.set(number + 1);
                let due = begin + Duration::from_secs_f64(number as f64 / rate);
                if let Some(early) = due.checked_sub(origin.elapsed()) {
                    tokio::time::sleep(early).await;
                }
                let body = format!(r#"{{"source":"t-{:012}","message":"m"}}"#, origin.elapsed().as_micros());
                let request = crate::http::request("POST", "/api/events", &token, "application/json", body.as_bytes());
                assert_eq!(connection.send(&request).await.expect("an answer").status, 202);
            }
        }));
    }
    let cpu = service.cpu();
    for sender in senders {
        sender.await.expect("a sender");
    }
    let cores = (service.cpu() - cpu) / (origin.elapsed() - begin).as_secs_f64();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    tasks.iter().for_each(|task| task.abort());
    let mut times = Times(heard.times.borrow().iter().map(|micros| u64::from(*micros)).collect());
    println!("\n| subscribers | signals/s | deliveries/s | p50 ms | p99 ms | service cores | KiB a client idle | peak RSS MiB |");
    println!("|---|---|---|---|---|---|---|---|");
    let delivered = times.0.len() as f64 / seconds().as_secs_f64();
    println!(
        "| {clients} | {} | {} | {:.2} | {:.2} | {cores:.2} | {:.1} | {:.0} |",
        grouped(sent.get() as f64 / (to - begin).as_secs_f64()),
        grouped(delivered),
        times.at(0.5),
        times.at(0.99),
        (idle - before) * 1024.0 / clients as f64,
        service.memory().1
    );
}
