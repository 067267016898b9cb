//! Calls to a listener that counts, with a resolver that says what the test wants.

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// Answers what it is given, the last again and again.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: AtomicUsize,
    hangs: bool,
}

impl Scripted {
    fn saying(answers: &[&[&str]]) -> Arc<Scripted> {
        let answers = answers.iter().map(|found| found.iter().map(|address| address.parse().unwrap()).collect()).collect();
        Arc::new(Scripted { answers: Mutex::new(answers), ..Scripted::default() })
    }
}

impl Resolve for Scripted {
    fn resolve(&self, _: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.hangs {
            return Box::pin(std::future::pending());
        }
        let mut answers = self.answers.lock();
        let found = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async move { found.ok_or_else(|| io::Error::other("unknown")) })
    }
}

/// Listens on this machine, counts who connects, and answers each request as it is told.
struct Server {
    port: u16,
    connects: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn answering(answer: impl Fn(usize) -> String + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server { port: listener.local_addr().unwrap().port(), connects: Arc::default(), requests: Arc::default() };
        let (connects, requests, answer) = (Arc::clone(&server.connects), Arc::clone(&server.requests), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                connects.fetch_add(1, Ordering::SeqCst);
                let (requests, answer) = (Arc::clone(&requests), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(read) = stream.read(&mut buffer).await
                        && read > 0
                    {
                        let number = {
                            let mut requests = requests.lock();
                            requests.push(String::from_utf8_lossy(&buffer[..read]).into_owned());
                            requests.len() - 1
                        };
                        stream.write_all(answer(number).as_bytes()).await.unwrap();
                    }
                });
            }
        });
        server
    }

    fn connects(&self) -> usize {
        self.connects.load(Ordering::SeqCst)
    }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn outbound(allow: &[&str], resolver: Arc<Scripted>) -> (Outbound, prometheus::Registry) {
    let registry = prometheus::Registry::new();
    let allow_private = allow.iter().map(|network| network.parse().unwrap()).collect();
    (Outbound::new(OutboundOptions { allow_private, resolver }, &registry).unwrap(), registry)
}

fn shown(registry: &prometheus::Registry) -> String {
    prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
}

const REFUSED: OutboundError = OutboundError::Refused(Refused::Address);

#[tokio::test]
async fn e1_a_closed_address_is_refused_before_anything_connects_however_it_is_written() {
    let server = Server::answering(|_| answer("200 OK", "")).await;
    let resolver = Scripted::saying(&[&["127.0.0.1"]]);
    let (outbound, _) = outbound(&[], Arc::clone(&resolver));
    let target = outbound.target("test", TargetPolicy { retries: 0, ..TargetPolicy::default() });
    for host in ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "017700000001", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127。0。0。1"]
    {
        let refused = target.send(Request::get(format!("http://{host}:{}/", server.port))).await.unwrap_err();
        assert_eq!(refused, REFUSED, "{host}");
    }
    assert_eq!(resolver.asked.load(Ordering::SeqCst), 0, "addresses are not asked for");
    for name in ["localhost", "127.0.0.1.nip.example", "hooks.example.org"] {
        let refused = target.send(Request::get(format!("http://{name}:{}/", server.port))).await.unwrap_err();
        assert_eq!(refused, REFUSED, "{name}");
    }
    assert_eq!(server.connects(), 0);
}

#[tokio::test]
async fn e1_one_closed_address_among_public_ones_is_enough_to_refuse() {
    let server = Server::answering(|_| answer("200 OK", "")).await;
    let (outbound, _) = outbound(&[], Scripted::saying(&[&["8.8.8.8", "127.0.0.1", "1.1.1.1"]]));
    let target = outbound.target("test", TargetPolicy::default());
    let refused = target.send(Request::get(format!("http://hooks.example.org:{}/", server.port))).await.unwrap_err();
    assert_eq!((refused, server.connects()), (REFUSED, 0));
}

#[tokio::test]
async fn e1_the_address_that_was_checked_is_the_one_connected_to() {
    let server = Server::answering(|_| answer("200 OK", "here")).await;
    // the second answer would be refused: were there a second question for one connection, the call would fail
    let resolver = Scripted::saying(&[&["127.0.0.1"], &["10.9.9.9"]]);
    let (outbound, _) = outbound(&["127.0.0.1/32"], Arc::clone(&resolver));
    let target = outbound.target("test", TargetPolicy::default());
    let url = format!("http://rebinding.example.org:{}/", server.port);
    let response = target.send(Request::get(url.clone())).await.unwrap();
    assert_eq!((&response.body[..], resolver.asked.load(Ordering::SeqCst), server.connects()), (&b"here"[..], 1, 1));
    // the next connection asks again, and what it is told then is checked then
    let fresh = Outbound::new(OutboundOptions { allow_private: Vec::new(), resolver }, &prometheus::Registry::new()).unwrap();
    assert_eq!(fresh.target("test", TargetPolicy::default()).send(Request::get(url)).await.unwrap_err(), REFUSED);
    assert_eq!(server.connects(), 1);
}

#[tokio::test]
async fn e1_a_redirect_is_an_answer_and_is_not_followed() {
    let server =
        Server::answering(|_| "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/\r\nContent-Length: 0\r\n\r\n".to_owned())
            .await;
    let (outbound, _) = outbound(&["127.0.0.0/8"], Scripted::saying(&[]));
    let target = outbound.target("test", TargetPolicy::default());
    let response = target.send(Request::get(format!("http://127.0.0.1:{}/", server.port))).await.unwrap();
    assert_eq!((response.status, server.connects(), server.requests.lock().len()), (StatusCode::FOUND, 1, 1));
}

#[tokio::test]
async fn an_answer_longer_than_agreed_is_not_taken_whether_it_says_so_or_not() {
    let server = Server::answering(|number| match number {
        0 => answer("200 OK", &"x".repeat(2000)),
        _ => format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000)),
    })
    .await;
    let (outbound, _) = outbound(&["127.0.0.0/8"], Scripted::saying(&[]));
    let target = outbound.target("test", TargetPolicy { max_body: 1000, ..TargetPolicy::default() });
    for _ in 0..2 {
        let error = target.send(Request::get(format!("http://127.0.0.1:{}/", server.port))).await.unwrap_err();
        assert_eq!(error, OutboundError::TooLong);
    }
}

#[tokio::test]
async fn s14_a_resolver_that_hangs_costs_a_call_its_deadline_and_others_nothing() {
    let server = Server::answering(|_| answer("200 OK", "")).await;
    let (outbound, _) = outbound(&["127.0.0.0/8"], Arc::new(Scripted { hangs: true, ..Scripted::default() }));
    let policy = TargetPolicy { deadline: Duration::from_millis(300), retries: 0, ..TargetPolicy::default() };
    let (hanging, other) = (outbound.target("hanging", policy), outbound.target("other", TargetPolicy::default()));
    let begun = tokio::time::Instant::now();
    let calls = (0..50).map(|_| hanging.send(Request::get("http://hooks.example.org/")));
    let local = other.send(Request::get(format!("http://127.0.0.1:{}/", server.port)));
    let (outcomes, local) = tokio::join!(futures_util::future::join_all(calls), local);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(OutboundError::Timeout | OutboundError::Open))), "{outcomes:?}");
    assert!(local.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s14_questions_to_the_system_take_no_more_threads_than_agreed() {
    let resolver = SystemResolver::default();
    let seats: Vec<_> = (0..SystemResolver::AT_ONCE).map(|_| Arc::clone(&resolver.threads).try_acquire_owned().unwrap()).collect();
    let waiting = tokio::time::timeout(Duration::from_secs(5), resolver.resolve("localhost"));
    assert!(waiting.await.is_err(), "no thread is taken for it");
    drop(seats);
    assert!(resolver.resolve("127.0.0.1").await.is_ok());
}

#[tokio::test]
async fn s14_a_caller_that_gives_up_does_not_free_the_thread_that_still_asks() {
    let resolver = SystemResolver::default();
    let answered = resolver.resolve("127.0.0.1").await;
    assert!(answered.is_ok());
    // given back behind the answer
    while resolver.threads.available_permits() < SystemResolver::AT_ONCE {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn s15_when_everything_fails_no_more_than_a_tenth_is_repeated() {
    let server = Server::answering(|_| answer("429 Too Many Requests", "")).await;
    let (outbound, registry) = outbound(&["127.0.0.0/8"], Scripted::saying(&[]));
    // refusals of this kind leave the breaker closed, so that nothing but the budget holds the calls back
    let target = outbound.target("test", TargetPolicy { retries: 3, ..TargetPolicy::default() });
    let url = format!("http://127.0.0.1:{}/", server.port);
    let calls = 400;
    for _ in 0..calls / 50 {
        let round = (0..50).map(|_| target.send(Request::get(url.clone())));
        futures_util::future::join_all(round).await;
    }
    let seen = server.requests.lock().len();
    assert!((calls + 10..=calls + calls / 10 + 3).contains(&seen), "{seen} requests for {calls} calls");
    assert!(shown(&registry).contains(&format!("opspilot_outbound_repeats_total{{target=\"test\"}} {}", seen - calls)));
}

#[tokio::test]
async fn only_what_is_safe_to_repeat_is_repeated() {
    let server = Server::answering(|number| if number % 2 == 0 { answer("503 Busy", "") } else { answer("200 OK", "") }).await;
    let (outbound, _) = outbound(&["127.0.0.0/8"], Scripted::saying(&[]));
    let target = outbound.target("test", TargetPolicy::default());
    let url = format!("http://127.0.0.1:{}/", server.port);
    assert_eq!(target.send(Request::get(url.clone())).await.unwrap().status, StatusCode::OK);
    assert_eq!(target.send(Request::post(url.clone(), "x")).await.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(server.requests.lock().len(), 3);
}

#[tokio::test]
async fn a_target_that_keeps_failing_is_left_alone_and_the_others_are_not() {
    let server = Server::answering(|_| answer("500 Broken", "")).await;
    let (outbound, registry) = outbound(&["127.0.0.0/8"], Scripted::saying(&[]));
    let policy = TargetPolicy { retries: 0, ..TargetPolicy::default() };
    let (target, other) = (outbound.target("broken", policy), outbound.target("other", policy));
    let url = format!("http://127.0.0.1:{}/", server.port);
    for _ in 0..5 {
        assert_eq!(target.send(Request::get(url.clone())).await.unwrap().status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    for _ in 0..20 {
        assert_eq!(target.send(Request::get(url.clone())).await.unwrap_err(), OutboundError::Open);
    }
    assert!(other.send(Request::get(url)).await.is_ok());
    assert_eq!(server.requests.lock().len(), 6);
    assert!(shown(&registry).contains("opspilot_outbound_breaker_open{target=\"broken\"} 1"));
}

#[tokio::test]
async fn e12_no_error_and_no_metric_says_where_a_call_went_or_what_it_carried() {
    const CANARY: &str = "canary-4711-hunter2";
    let server = Server::answering(|_| "garbage\r\n\r\n".to_owned()).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (outbound, registry) = outbound(&["127.0.0.0/8"], Scripted::saying(&[&["127.0.0.1"]]));
    let policy = TargetPolicy { deadline: Duration::from_secs(2), retries: 1, ..TargetPolicy::default() };
    let target = outbound.target("test", policy);
    let urls = [
        format!("http://127.0.0.1:{}/{CANARY}?k={CANARY}", server.port),
        format!("http://{CANARY}.example.org:{closed}/{CANARY}"),
        format!("http://10.0.0.1/{CANARY}"),
        format!("http://{CANARY}:{CANARY}@example.org/"),
        format!("http://127.0.0.1:22/{CANARY}"),
        CANARY.to_owned(),
    ];
    for url in urls {
        let mut request = Request::get(url);
        request.headers.insert("authorization", HeaderValue::from_static(CANARY));
        request.body = Bytes::from_static(CANARY.as_bytes());
        let said = format!("{request:?}");
        let error = target.send(request).await.unwrap_err();
        assert!(!format!("{said} {error} {error:?} {target:?} {outbound:?}").contains(CANARY), "{error:?}");
    }
    assert!(!shown(&registry).contains(CANARY));
}
