//! The live feed over real sockets.

use std::{sync::Arc, time::Duration};

use actix_web::web;
use futures_util::{SinkExt as _, StreamExt as _};
use opspilot_kernel::{
    alert::Transition,
    clock::Clock as _,
    config::{Size, Span},
    principal::Role,
    signal::SignalRef,
};
use opspilot_ledger::SignalBatchBuilder;
use opspilot_runtime::{ChildSpec, EventRouterHandle, Health, HealthMetrics, Module as _, Supervisor, SupervisorOptions};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest as _},
};

use super::support::{Api, As};
use crate::http::live::{LiveConfig, LiveModule};

const PATIENCE: Duration = Duration::from_secs(20);

struct Feed {
    api: Api,
    token: String,
    module: LiveModule,
}

impl Feed {
    async fn start(config: LiveConfig) -> Feed {
        let api = Api::start().await;
        let token = api.someone("vera", Role::Viewer).await;
        let registry = prometheus::Registry::new();
        let metrics = HealthMetrics::register(&registry, api.state.ledger.queue_gauge().clone()).unwrap();
        let supervisor = Supervisor::new(SupervisorOptions {
            clock: api.clock.clone(),
            log: api.state.log.clone(),
            health: Health::new(api.clock.clone(), metrics),
            exit: Arc::new(|_| {}),
            seed: 1,
        });
        let router = EventRouterHandle::new(api.state.ledger.clone(), &registry, api.state.log.clone()).unwrap();
        let own = router.clone();
        supervisor.start(ChildSpec::core("core.events"), move || own.actor());
        let module = api.state.live.supervised(&supervisor, &router, api.state.ledger.clone(), api.state.log.clone(), config);
        Feed { api, token, module }
    }

    /// Commits one row of signals, and with it one event.
    async fn event(&self, source: &str) {
        self.append(&[source]).await;
    }

    async fn append(&self, sources: &[&str]) {
        let now = self.api.clock.now();
        let mut batch = SignalBatchBuilder::new(now);
        sources.iter().for_each(|source| batch.push(&SignalRef::log(now, source, "m")));
        self.api.state.ledger.append(batch.seal()).await.unwrap();
    }

    async fn connect(&self, headers: &[(&str, &str)], query: &str, receive_buffer: Option<u32>) -> Result<Client, u16> {
        let mut request = format!("ws://{}/api/live{query}", self.api.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(tungstenite::http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let stream = socket.connect(self.api.address).await.unwrap();
        match client_async(request, stream).await {
            Ok((stream, _)) => Ok(Client(stream)),
            Err(tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn client(&self) -> Client {
        let mut client = self.connect(&[("authorization", &format!("Bearer {}", self.token))], "", None).await.unwrap();
        assert_eq!(client.next().await.unwrap()["type"], "welcome");
        client
    }

    async fn subscriber(&self, message: Value) -> Client {
        let mut client = self.client().await;
        client.send(message).await;
        assert_eq!(client.next().await.unwrap()["type"], "subscribed");
        client
    }

    async fn ticket(&self, origin: Option<&str>) -> String {
        let mut request = self.api.request(As::Token(&self.token), "post", "/api/auth/ws-ticket");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        super::support::send(request).await.expect(200).body["ticket"].as_str().unwrap().to_owned()
    }
}

struct Client(WebSocketStream<TcpStream>);

impl Client {
    async fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message, or the code it was closed with.
    async fn next(&mut self) -> Result<Value, u16> {
        let next = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(text.as_str()).unwrap()),
                    Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| u16::from(frame.code))),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(1006),
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("the feed is silent")
    }

    async fn event(&mut self) -> u64 {
        let message = self.next().await.unwrap();
        assert_eq!(message["type"], "event", "{message}");
        message["seq"].as_u64().unwrap()
    }

    async fn closed(&mut self) -> u16 {
        loop {
            if let Err(code) = self.next().await {
                return code;
            }
        }
    }
}

fn subscribe() -> Value {
    json!({ "action": "subscribe", "events": ["log.ingested"] })
}

#[actix_web::test]
async fn a_client_hears_what_it_asked_for_as_it_is_committed() {
    let feed = Feed::start(LiveConfig::default()).await;
    feed.event("before").await;
    let mut client = feed.connect(&[("authorization", &format!("Bearer {}", feed.token))], "", None).await.unwrap();
    let welcome = client.next().await.unwrap();
    assert_eq!((&welcome["type"], &welcome["lastSeq"]), (&json!("welcome"), &json!(1)));
    assert!(welcome["clientId"].is_string() && welcome["subscribableEvents"].as_array().unwrap().contains(&json!("incident.created")));
    client.send(json!({ "action": "ping" })).await;
    assert_eq!(client.next().await.unwrap(), json!({ "type": "pong" }));
    client.send(subscribe()).await;
    assert_eq!(client.next().await.unwrap(), json!({ "type": "subscribed", "events": ["log.ingested"] }));
    feed.event("a").await;
    let event = client.next().await.unwrap();
    assert_eq!((&event["type"], &event["eventType"], &event["seq"]), (&json!("event"), &json!("log.ingested"), &json!(2)));
    assert_eq!(event["data"]["sources"], json!(["a"]));
    assert!(event["at"].is_string());
    client.send(json!({ "action": "unsubscribe", "events": ["log.ingested"] })).await;
    assert_eq!(client.next().await.unwrap(), json!({ "type": "subscribed", "events": [] }));
    feed.event("not heard").await;
    client.send(json!({ "action": "subscribe", "events": ["incident.create"] })).await;
    let error = client.next().await.unwrap();
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("unknown_event")));
    client.send(json!({ "action": "subscribe", "events": ["log.ingested"], "filter": { "source": ["b"] } })).await;
    assert_eq!(client.next().await.unwrap()["type"], "subscribed");
    feed.event("a").await;
    feed.event("b").await;
    assert_eq!(client.event().await, 5, "what the filter holds back is not told");
}

#[actix_web::test]
async fn a_client_that_comes_back_misses_nothing_and_hears_nothing_twice() {
    let feed = Feed::start(LiveConfig { buffer: Size(20_000), ..LiveConfig::default() }).await;
    const EVENTS: u64 = 300;
    let writer = async {
        while feed.api.state.ledger.events().head() < EVENTS {
            feed.event("a").await;
        }
    };
    let reader = async {
        let mut heard: Vec<u64> = Vec::new();
        let mut rng = 11_u64;
        while heard.last() != Some(&EVENTS) {
            let after = heard.last().copied().unwrap_or(0);
            let mut client = feed.subscriber(json!({ "action": "subscribe", "events": ["log.ingested"], "after": after })).await;
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            for _ in 0..(rng >> 33) % 40 {
                if heard.last() == Some(&EVENTS) {
                    break;
                }
                heard.push(client.event().await);
            }
        }
        heard
    };
    let ((), heard) = tokio::join!(writer, reader);
    assert_eq!(heard, (1..=EVENTS).collect::<Vec<_>>());
}

#[actix_web::test]
async fn what_a_client_does_not_want_does_not_keep_it_from_what_it_does() {
    let fat: Vec<String> = (0..32).map(|index| format!("{index}{}", "x".repeat(250))).collect();
    let fat: Vec<&str> = fat.iter().map(String::as_str).collect();
    // many pages on the board, and many of the ledger
    for (buffer, events, sources) in [(64 << 20, 100, &*fat), (20_000, 1000, &["a"])] {
        // no ping will wake anybody
        let config =
            LiveConfig { buffer: Size(buffer), heartbeat: Span::millis(600_000), timeout: Span::millis(900_000), ..LiveConfig::default() };
        let feed = Feed::start(config).await;
        for _ in 0..events {
            feed.append(sources).await;
        }
        let _pipeline = super::incidents::start_pipeline(&feed.api);
        super::incidents::claim(&feed.api, "postgres", Transition::Firing).await;
        let asked = tokio::time::Instant::now();
        let mut client = feed.subscriber(json!({ "action": "subscribe", "events": ["incident.created"], "after": 0 })).await;
        assert!(client.event().await > events);
        assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    }
}

#[actix_web::test]
async fn a_second_subscription_that_goes_back_repeats_nothing_of_the_first() {
    let feed = Feed::start(LiveConfig::default()).await;
    for _ in 0..5 {
        feed.event("a").await;
    }
    let mut client = feed.subscriber(json!({ "action": "subscribe", "events": ["log.ingested"], "after": 3 })).await;
    assert_eq!((client.event().await, client.event().await), (4, 5));
    client.send(json!({ "action": "subscribe", "events": ["incident.created"], "after": 0 })).await;
    assert_eq!(client.next().await.unwrap()["events"], json!(["log.ingested", "incident.created"]));
    feed.event("a").await;
    assert_eq!(client.event().await, 6);
    client.send(json!({ "action": "subscribe", "events": ["log.ingested"], "after": 99 })).await;
    assert_eq!(client.next().await.unwrap()["type"], "subscribed");
    assert_eq!(client.next().await.unwrap(), json!({ "type": "resync_required", "from": 6 }));
    feed.event("a").await;
    assert_eq!(client.event().await, 7);
}

#[actix_web::test]
async fn s6_a_slow_client_is_told_and_closed_and_nobody_else_waits() {
    let feed = Feed::start(LiveConfig { buffer: Size(256 << 10), ..LiveConfig::default() }).await;
    let bearer = format!("Bearer {}", feed.token);
    let mut slow = feed.connect(&[("authorization", &bearer)], "", Some(4096)).await.unwrap();
    assert_eq!(slow.next().await.unwrap()["type"], "welcome");
    slow.send(subscribe()).await;
    assert_eq!(slow.next().await.unwrap()["type"], "subscribed");
    let mut quick = feed.subscriber(subscribe()).await;
    let sources: Vec<String> = (0..32).map(|index| format!("{index}{}", "x".repeat(250))).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    for seq in 1..=1200 {
        feed.append(&sources).await;
        assert_eq!(quick.event().await, seq, "who reads hears everything at once");
    }
    let mut last = 0;
    loop {
        match slow.next().await.unwrap() {
            event if event["type"] == "event" => {
                assert_eq!(event["seq"], last + 1, "what a slow client gets has no gap");
                last += 1;
            }
            told => {
                assert_eq!(told, json!({ "type": "resync_required", "from": last }));
                break;
            }
        }
    }
    assert!((1..1200).contains(&last), "the fault must happen: {last}");
    assert_eq!(slow.next().await, Err(1013));
    let mut again = feed.subscriber(json!({ "action": "subscribe", "events": ["log.ingested"], "after": last })).await;
    assert_eq!(again.event().await, last + 1, "and it goes on where it was told to");
}

#[actix_web::test]
async fn s7_floods_and_what_is_no_message_close_with_their_code() {
    let feed = Feed::start(LiveConfig { messages: 20, ..LiveConfig::default() }).await;
    let mut client = feed.client().await;
    client.0.send(Message::text("x".repeat((64 << 10) + 1))).await.unwrap();
    assert_eq!(client.closed().await, 1009);
    let mut client = feed.client().await;
    for _ in 0..200 {
        // the server may have closed already
        if client.0.send(Message::Ping(web::Bytes::new())).await.is_err() {
            break;
        }
    }
    assert_eq!(client.closed().await, 1008);
    let mut client = feed.client().await;
    client.0.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(client.closed().await, 1003);
    let mut raw = raw(&feed).await;
    raw.write_all(&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]).await.unwrap();
    assert_eq!(close_code(&mut raw).await, 1007);
    assert_eq!(feed.client().await.0.close(None).await.ok(), Some(()), "others go on");
}

/// A socket on which nobody answers pings.
async fn raw(feed: &Feed) -> TcpStream {
    let mut socket = TcpStream::connect(feed.api.address).await.unwrap();
    let head = format!(
        "GET /api/live HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        feed.api.address, feed.token
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    socket
}

/// Reads frames until the close frame; its code.
async fn close_code(socket: &mut TcpStream) -> u16 {
    loop {
        let opcode = socket.read_u8().await.unwrap() & 0x0f;
        let len = match socket.read_u8().await.unwrap() {
            126 => usize::from(socket.read_u16().await.unwrap()),
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        socket.read_exact(&mut payload).await.unwrap();
        if opcode == 8 {
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
    }
}

#[actix_web::test]
async fn a_client_without_a_sign_of_life_is_closed() {
    let config = LiveConfig { heartbeat: Span::millis(50), timeout: Span::millis(200), ..LiveConfig::default() };
    let feed = Feed::start(config).await;
    let mut dead = raw(&feed).await;
    let mut alive = feed.subscriber(subscribe()).await;
    let answering = async {
        loop {
            if let Ok(message) = alive.next().await {
                return message;
            }
        }
    };
    let (code, heard) = tokio::join!(
        async {
            let code = close_code(&mut dead).await;
            feed.event("a").await;
            code
        },
        answering
    );
    assert_eq!(code, 1001);
    assert_eq!(heard["type"], "event", "who answers pings is kept");
}

#[actix_web::test]
async fn t14_only_our_own_page_may_listen_with_a_cookie() {
    let feed = Feed::start(LiveConfig::default()).await;
    let login = super::support::send(
        feed.api.request(As::Nobody, "post", "/api/auth/login").json(&json!({ "username": "vera", "password": super::support::PASSWORD })),
    )
    .await;
    let cookie = login.expect(200).header("set-cookie").split(';').next().unwrap().to_owned();
    let own = feed.api.origin();
    let status = async |headers: &[(&str, &str)], query: &str| match feed.connect(headers, query, None).await {
        Ok(mut client) => client.next().await.map_or_else(|code| code, |_| 101),
        Err(status) => status,
    };
    assert_eq!(status(&[("cookie", &cookie), ("origin", &own)], "").await, 101);
    for foreign in ["null", "http://evil.example", &format!("{own}.evil.example"), &format!("{own}1"), &own.replace("http", "https")] {
        assert_eq!(status(&[("cookie", &cookie), ("origin", foreign)], "").await, 403, "{foreign}");
    }
    assert_eq!(status(&[("cookie", &cookie)], "").await, 403, "no Origin");
    assert_eq!(status(&[], "").await, 401);
    let operator = feed.api.someone("olga", Role::Operator).await;
    let key = feed.api.key(&operator, "integrator").await;
    assert_eq!(status(&[("x-api-key", &key)], "").await, 403, "an integrator");

    let ticket = feed.ticket(Some(&own)).await;
    assert_eq!(status(&[("origin", "http://evil.example")], &format!("?ticket={ticket}")).await, 403);
    assert_eq!(status(&[("origin", &own)], &format!("?ticket={ticket}")).await, 101);
    assert_eq!(status(&[("origin", &own)], &format!("?ticket={ticket}")).await, 4401, "used");
    let plain = feed.ticket(None).await;
    assert_eq!(status(&[], &format!("?ticket={plain}")).await, 101);
    let late = feed.ticket(None).await;
    feed.api.clock.advance(Duration::from_secs(31));
    assert_eq!(status(&[], &format!("?ticket={late}")).await, 4401, "too late");
    assert_eq!(status(&[], "?ticket=x").await, 4401);
    assert_eq!(status(&[], "?tickt=x").await, 422);
    for secret in [&ticket, &plain, &late] {
        assert!(!feed.api.log.text().contains(secret.as_str()), "a ticket in the log");
    }
}

#[actix_web::test]
async fn t13_logging_out_closes_within_a_second() {
    let feed = Feed::start(LiveConfig::default()).await;
    let mut client = feed.subscriber(subscribe()).await;
    let other = feed.api.someone("olga", Role::Viewer).await;
    let mut stays = feed.connect(&[("authorization", &format!("Bearer {other}"))], "", None).await.unwrap();
    assert_eq!(stays.next().await.unwrap()["type"], "welcome");
    feed.api.post(As::Token(&feed.token), "/api/auth/logout", json!({})).await;
    let closed = tokio::time::timeout(Duration::from_secs(1), client.closed()).await;
    assert_eq!(closed.ok(), Some(4401));
    stays.send(json!({ "action": "ping" })).await;
    assert_eq!(stays.next().await.unwrap()["type"], "pong", "others stay");
}

#[actix_web::test]
async fn a13_a_stop_closes_with_1001_and_a_restart_of_the_module_with_1013() {
    let feed = Feed::start(LiveConfig::default()).await;
    let mut client = feed.subscriber(subscribe()).await;
    feed.module.stop().await;
    assert_eq!(client.closed().await, 1013);
    assert_eq!(feed.connect(&[("authorization", &format!("Bearer {}", feed.token))], "", None).await.err(), Some(503));
    let feed = Feed::start(LiveConfig::default()).await;
    let mut client = feed.subscriber(subscribe()).await;
    feed.api.stopping.send_replace(true);
    assert_eq!(client.closed().await, 1001);
}

#[actix_web::test]
async fn s7_there_are_only_so_many_places_and_each_is_given_back() {
    let feed = Feed::start(LiveConfig { max_clients: 2, ..LiveConfig::default() }).await;
    let (first, _second) = (feed.client().await, feed.client().await);
    let bearer = format!("Bearer {}", feed.token);
    assert_eq!(feed.connect(&[("authorization", &bearer)], "", None).await.err(), Some(503));
    drop(first);
    let freed = async {
        while feed.connect(&[("authorization", &bearer)], "", None).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.unwrap();
}
