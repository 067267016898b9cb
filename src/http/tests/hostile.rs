//! Hostile bytes: none crashes the process, none is read in two ways, none holds a connection.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use opspilot_kernel::principal::Role;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::support::{Api, As, PASSWORD, roomy, send};
use crate::http::settings::Settings;

const PATIENCE: Duration = Duration::from_secs(10);

#[actix_web::test]
async fn h1_hostile_json_gets_a_4xx_that_says_what() {
    let api = Api::start().await;
    let root = api.someone("root", Role::Admin).await;
    let long = format!(r#"{{"username":"{}","role":"viewer","password":"{PASSWORD}"}}"#, "x".repeat(900_000));
    let huge = format!(r#"{{"username":"{}"}}"#, "x".repeat(10 << 20));
    let many: String = (0..120_000).map(|n| format!("\"k{n}\":1,")).collect();
    let many = format!("{{{}\"end\":1}}", many);
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("100 k deep array", "[".repeat(100_000).into_bytes(), &[400]),
        ("100 k deep object", r#"{"a":"#.repeat(100_000).into_bytes(), &[400]),
        ("long string", long.into_bytes(), &[422]),
        ("10 MB string", huge.into_bytes(), &[413]),
        ("120 k keys", many.into_bytes(), &[400, 413]),
        ("1e400", br#"{"username":1e400}"#.to_vec(), &[400]),
        ("-0", br#"{"username":-0}"#.to_vec(), &[422]),
        ("2^64", br#"{"username":18446744073709551616}"#.to_vec(), &[422]),
        ("NaN", br#"{"username":NaN}"#.to_vec(), &[400]),
        ("lone surrogate", br#"{"username":"\ud800"}"#.to_vec(), &[400]),
        ("invalid UTF-8", b"{\"username\":\"\xff\"}".to_vec(), &[400]),
        ("NUL", b"{\"username\":\"\0\"}".to_vec(), &[400]),
        ("byte order mark", b"\xef\xbb\xbf{}".to_vec(), &[400]),
        ("duplicate key", br#"{"role":"viewer","role":"admin"}"#.to_vec(), &[400]),
        ("duplicate nested", br#"{"groups":[{"a":1,"a":2}]}"#.to_vec(), &[400]),
        ("empty", Vec::new(), &[400]),
        ("half", br#"{"username":"#.to_vec(), &[400]),
        ("array", b"[]".to_vec(), &[422]),
        ("null", b"null".to_vec(), &[422]),
    ];
    for (name, body, statuses) in cases {
        let got = send(api.request(As::Token(&root), "post", "/api/users").header("content-type", "application/json").body(body)).await;
        assert!(statuses.contains(&got.status), "{name}: {} {}", got.status, got.body);
        assert!(!got.body["detail"].as_str().unwrap().is_empty(), "{name}");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "multipart/form-data"] {
        let got = send(api.request(As::Token(&root), "post", "/api/users").header("content-type", kind).body("{}")).await;
        assert_eq!(got.status, 415, "{kind}");
    }
    let zipped =
        api.request(As::Token(&root), "post", "/api/users").header("content-type", "application/json").header("content-encoding", "gzip");
    send(zipped.body("{}")).await.expect(415);
    api.get(As::Token(&root), "/api/users").await.expect(200);
    api.stop().await;
}

#[actix_web::test]
async fn s8_slow_heads_and_bodies_are_ended_while_good_clients_go_on() {
    let settings = Settings { head_timeout: Duration::from_millis(500), body_timeout: Duration::from_millis(500), ..roomy() };
    let api = Api::with(settings, |_| {}).await;
    let mut slow = Vec::new();
    for n in 0..200 {
        let mut socket = TcpStream::connect(api.address).await.unwrap();
        let text = if n % 2 == 0 {
            "GET /api/livez HTTP/1.1\r\nHost: x\r\nX-Slow: "
        } else {
            "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"user"
        };
        socket.write_all(text.as_bytes()).await.unwrap();
        slow.push(socket);
    }
    for _ in 0..20 {
        let started = tokio::time::Instant::now();
        api.get(As::Nobody, "/api/livez").await.expect(200);
        assert!(started.elapsed() < Duration::from_secs(3), "a good client waits {:?}", started.elapsed());
    }
    let mut timed_out = 0;
    for mut socket in slow {
        let mut text = String::new();
        let read = tokio::time::timeout(PATIENCE, socket.read_to_string(&mut text)).await;
        assert!(read.is_ok(), "a slow client is not held on to");
        timed_out += usize::from(text.starts_with("HTTP/1.1 408"));
    }
    println!("S8: 200 slow clients, {timed_out} were answered 408, all were closed");
    assert!(timed_out >= 190, "{timed_out}");
    api.stop().await;
}

#[actix_web::test]
async fn s8_a_body_too_large_is_refused_before_it_is_sent() {
    let api = Api::start().await;
    let head = "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n";
    let raw = api.raw(head.as_bytes(), PATIENCE).await;
    assert_eq!((raw.status(), raw.closed), (Some(413), true), "{}", raw.text);
    // without a length it is cut where the limit is
    let mut endless =
        b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..40 {
        endless.extend_from_slice(format!("{:x}\r\n{}\r\n", 64 << 10, "x".repeat(64 << 10)).as_bytes());
    }
    let raw = api.raw(&endless, PATIENCE).await;
    assert!(raw.closed && raw.status().is_none_or(|status| status == 413), "{:?}", raw.status());
    api.stop().await;
}

#[actix_web::test]
async fn s8_connections_beyond_the_cap_wait_and_are_served_when_there_is_room() {
    let settings = Settings { connections: 8, keep_alive: Duration::from_secs(1), head_timeout: Duration::from_secs(1), ..roomy() };
    let api = Api::with(settings, |_| {}).await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(TcpStream::connect(api.address).await.unwrap());
    }
    // they send nothing, are ended one by one, and make room
    tokio::time::timeout(Duration::from_secs(30), api.get(As::Nobody, "/api/livez")).await.expect("served in the end").expect(200);
    drop(idle);
    api.get(As::Nobody, "/api/livez").await.expect(200);
    api.stop().await;
}

#[actix_web::test]
async fn a_panic_in_a_handler_is_an_answer_and_nothing_more() {
    async fn panics() -> HttpResponse {
        assert!(!std::hint::black_box(true), "injected");
        HttpResponse::Ok().finish()
    }
    let api = Api::with(roomy(), |config| {
        config.route("/api/test/panic", web::get().to(panics));
    })
    .await;
    for _ in 0..5 {
        let got = api.get(As::Nobody, "/api/test/panic").await.expect(500);
        assert_eq!(got.code(), "internal");
        assert!(!got.body.to_string().contains("injected"));
        api.get(As::Nobody, "/api/livez").await.expect(200);
    }
    api.stop().await;
}

#[actix_web::test]
async fn every_answer_carries_the_security_headers() {
    let api = Api::start().await;
    for path in ["/api/livez", "/", "/nothing", "/api/users", "/api/docs/"] {
        let answer = api.request(As::Nobody, "get", path).header("origin", "https://evil.example").send().await.unwrap();
        let header = |name: &str| answer.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        assert!(header("content-security-policy").starts_with("default-src 'none'; script-src 'self'"), "{path}");
        assert!(header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(header("cross-origin-opener-policy"), "same-origin", "{path}");
        assert_eq!(header("cross-origin-resource-policy"), "same-origin", "{path}");
        assert_eq!(header("cache-control"), "no-store", "{path}");
        assert_eq!(header("access-control-allow-origin"), "", "CORS is off");
        assert_eq!(header("strict-transport-security"), "", "only with TLS");
    }
    api.stop().await;
}

/// Runs this test binary again with few descriptors, since a limit holds for the whole process.
#[test]
fn a16_out_of_descriptors_accepting_pauses_and_recovers() {
    const CHILD: &str = "A16_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "http::tests::hostile::a16_child", "--nocapture", "--ignored"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("A16: "), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", text.lines().find(|line| line.contains("A16: ")).unwrap());
}

#[actix_web::test]
#[ignore = "run by a16_out_of_descriptors_accepting_pauses_and_recovers, in a process of its own"]
async fn a16_child() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let api = Api::start().await;
    let token = api.someone("ada", Role::Viewer).await;
    // the clients share the limit with the server: half of what is left is theirs
    let old = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(128), maximum: old.maximum }).unwrap();
    let mut sockets = Vec::new();
    let mut refused = 0;
    for _ in 0..500 {
        match tokio::time::timeout(Duration::from_millis(20), TcpStream::connect(api.address)).await {
            Ok(Ok(socket)) => sockets.push(socket),
            _ => refused += 1,
        }
    }
    assert!(refused > 0, "the descriptors ran out");
    let held = sockets.len();
    drop(sockets);
    setrlimit(Resource::Nofile, old).unwrap();
    let got = tokio::time::timeout(Duration::from_secs(20), api.get(As::Token(&token), "/api/auth/me")).await.expect("it accepts again");
    got.expect(200);
    println!("A16: {held} connections were held and {refused} refused at 128 descriptors; served again after");
    api.stop().await;
}
