//! Where a request ends: every form that two parties could read in two ways gets one refusal and the end of the
//! connection, and everything before it is answered as ever. Over raw sockets, whole and in pieces.

use std::{io, sync::Arc, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::support::{Api, As, roomy};
use crate::http::settings::Settings;

const PATIENCE: Duration = Duration::from_secs(10);
/// Never answered when it stands behind a refusal.
const BEHIND: &str = "GET /api/livez?behind HTTP/1.1\r\nHost: x\r\n\r\n";
const GOOD: &str = "GET /api/livez HTTP/1.1\r\nHost: x\r\n\r\n";

/// One answer of a raw connection.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Takes a connection's text apart into answers, each with a Content-Length or none.
fn answers(mut text: &str) -> Vec<Answer> {
    let mut all = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        let status =
            head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 ")).unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = status[..3].parse().unwrap();
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let length = if status == 100 { 0 } else { length };
        all.push(Answer { status, head: head.to_owned(), body: rest[..length].to_owned() });
        text = &rest[length..];
    }
    assert_eq!(text, "", "something behind the answers");
    all
}

/// Sends pieces one by one and reads to the end of the connection.
async fn talk(api: &Api, pieces: &[&[u8]]) -> String {
    let socket = TcpStream::connect(api.address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (mut read, mut write) = socket.into_split();
    let send = async {
        for piece in pieces {
            if write.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        write
    };
    let mut text = Vec::new();
    let receive = tokio::time::timeout(PATIENCE, read.read_to_end(&mut text));
    let (write, received) = tokio::join!(send, receive);
    drop(write);
    let text = String::from_utf8(text).unwrap();
    received.unwrap_or_else(|_| panic!("not closed: {text}")).expect("in order, and not with a reset");
    text
}

/// Cuts at random.
fn cut<'a>(dice: &mut StdRng, mut bytes: &'a [u8], most: usize) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(dice.random_range(1..=most).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Name, bytes, status, code.
type Case = (&'static str, Vec<u8>, u16, &'static str);

fn cases() -> Vec<Case> {
    let post = |headers: &str, body: &str| {
        format!("POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}\r\n{body}").into_bytes()
    };
    let get = |headers: &str| format!("GET /api/livez HTTP/1.1\r\nHost: x\r\n{headers}\r\n").into_bytes();
    let line = |line: &str| format!("{line}\r\nHost: x\r\n\r\n").into_bytes();
    let long = "a".repeat(64 << 10);
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
    vec![
        // line ends and bytes
        ("LF alone behind the request line", b"GET /api/livez HTTP/1.1\nHost: x\r\n\r\n".to_vec(), 400, "bad_line_end"),
        ("LF alone behind a header", get("X-A: b\nX-B: c\r\n"), 400, "bad_line_end"),
        ("LF alone everywhere", b"GET /api/livez HTTP/1.1\nHost: x\n\n".to_vec(), 400, "bad_line_end"),
        ("LF alone at the end", b"GET /api/livez HTTP/1.1\r\nHost: x\r\n\n".to_vec(), 400, "bad_line_end"),
        ("CR alone in a header", get("X-A: b\rX-B: c\r\n"), 400, "bad_header"),
        ("CR CR LF", get("X-A: b\r\r\n"), 400, "bad_header"),
        ("NUL in a value", get("X-A: a\0b\r\n"), 400, "bad_header"),
        ("NUL in a name", get("X-\0A: a\r\n"), 400, "bad_header"),
        ("NUL in the target", line("GET /api\0/livez HTTP/1.1"), 400, "bad_target"),
        ("DEL in a value", get("X-A: \x7f\r\n"), 400, "bad_header"),
        // header lines
        ("obs-fold", get("X-A: b\r\n c\r\n"), 400, "folded_header"),
        ("obs-fold with a tab", get("X-A: b\r\n\tContent-Length: 5\r\n"), 400, "folded_header"),
        ("space before the colon", post("Content-Length : 0\r\n", ""), 400, "bad_header"),
        ("tab before the colon", post("Content-Length\t: 0\r\n", ""), 400, "bad_header"),
        ("no colon", get("Content-Length\r\n"), 400, "bad_header"),
        ("no name", get(": x\r\n"), 400, "bad_header"),
        ("a space within a name", get("X A: x\r\n"), 400, "bad_header"),
        ("64 KiB of headers", get(&format!("X-A: {long}\r\n")), 431, "headers_too_large"),
        ("64 KiB in a name", get(&format!("{long}: a\r\n")), 431, "headers_too_large"),
        ("97 headers", get(&"A: b\r\n".repeat(96)), 431, "headers_too_large"),
        // lengths
        ("length and chunks", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400, "two_lengths"),
        ("chunks and length", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"), 400, "two_lengths"),
        ("two lengths", post("Content-Length: 0\r\nContent-Length: 5\r\n", ""), 400, "bad_content_length"),
        ("two equal lengths", post("Content-Length: 0\r\nContent-Length: 0\r\n", ""), 400, "bad_content_length"),
        ("list of lengths", post("Content-Length: 0, 0\r\n", ""), 400, "bad_content_length"),
        ("signed length", post("Content-Length: +0\r\n", ""), 400, "bad_content_length"),
        ("negative length", post("Content-Length: -1\r\n", ""), 400, "bad_content_length"),
        ("hex length", post("Content-Length: 0x0\r\n", ""), 400, "bad_content_length"),
        ("empty length", post("Content-Length:\r\n", ""), 400, "bad_content_length"),
        ("length beyond 64 bits", post("Content-Length: 18446744073709551616\r\n", ""), 400, "bad_content_length"),
        ("xchunked", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 400, "bad_transfer_encoding"),
        ("chunked, identity", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), 400, "bad_transfer_encoding"),
        ("gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 400, "bad_transfer_encoding"),
        ("identity", post("Transfer-Encoding: identity\r\n", ""), 400, "bad_transfer_encoding"),
        ("vertical tab before chunked", post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), 400, "bad_header"),
        ("chunked twice", post(&CHUNKED.repeat(2), "0\r\n\r\n"), 400, "bad_transfer_encoding"),
        (
            "chunks on HTTP/1.0",
            b"POST /api/auth/login HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            400,
            "bad_transfer_encoding",
        ),
        ("POST on HTTP/1.0 without a length", b"POST /api/auth/login HTTP/1.0\r\n\r\n".to_vec(), 400, "bad_content_length"),
        ("a body before an upgrade", get("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n"), 400, "body_before_upgrade"),
        // chunks
        ("no size", post(CHUNKED, "zz\r\n\r\n"), 400, "bad_chunk"),
        ("empty size", post(CHUNKED, "\r\n\r\n"), 400, "bad_chunk"),
        ("size beyond 64 bits", post(CHUNKED, "10000000000000000\r\n\r\n"), 400, "bad_chunk"),
        ("signed size", post(CHUNKED, "+1\r\na\r\n0\r\n\r\n"), 400, "bad_chunk"),
        ("size with 0x", post(CHUNKED, "0x1\r\na\r\n0\r\n\r\n"), 400, "bad_chunk"),
        ("space behind the size", post(CHUNKED, "1 \r\na\r\n0\r\n\r\n"), 400, "bad_chunk"),
        ("LF alone behind the size", post(CHUNKED, "1\na\r\n0\r\n\r\n"), 400, "bad_chunk"),
        ("CR alone behind the size", post(CHUNKED, "1\ra\r\n0\r\n\r\n"), 400, "bad_chunk"),
        ("NUL in an extension", post(CHUNKED, "1;a\0b\r\na\r\n0\r\n\r\n"), 400, "bad_chunk"),
        ("a long extension", post(CHUNKED, &format!("1;{}\r\na\r\n0\r\n\r\n", "a".repeat(300))), 400, "bad_chunk"),
        ("an extension without an end", post(CHUNKED, &format!("1;{}", "a".repeat(2 << 20))), 400, "bad_chunk"),
        ("a chunk longer than its size", post(CHUNKED, "1\r\nab\r\n0\r\n\r\n"), 400, "bad_chunk"),
        ("LF alone behind a chunk", post(CHUNKED, "1\r\na\n0\r\n\r\n"), 400, "bad_chunk"),
        ("a bad size later on", post(CHUNKED, "2\r\n{}\r\nx\r\n\r\n"), 400, "bad_chunk"),
        ("a trailer that is no header", post(CHUNKED, "2\r\n{}\r\n0\r\nGET /api/livez HTTP/1.1\r\n\r\n"), 400, "bad_trailer"),
        ("a folded trailer", post(CHUNKED, "2\r\n{}\r\n0\r\nA: b\r\n c\r\n\r\n"), 400, "bad_trailer"),
        ("8 KiB of trailers", post(CHUNKED, &format!("2\r\n{{}}\r\n0\r\n{}\r\n", "A: b\r\n".repeat(1400))), 400, "bad_trailer"),
        // request lines and hosts
        ("HTTP/0.9", b"GET /api/livez\r\n".to_vec(), 400, "bad_request_line"),
        ("HTTP/2.0 by hand", line("GET /api/livez HTTP/2.0"), 400, "bad_request_line"),
        ("HTTP/1.2", line("GET /api/livez HTTP/1.2"), 400, "bad_request_line"),
        ("http/1.1", line("GET /api/livez http/1.1"), 400, "bad_request_line"),
        ("two spaces", line("GET  /api/livez HTTP/1.1"), 400, "bad_request_line"),
        ("a space within the target", line("GET /api/livez /x HTTP/1.1"), 400, "bad_request_line"),
        ("a tab for a space", line("GET\t/api/livez HTTP/1.1"), 400, "bad_request_line"),
        ("no method", line(" /api/livez HTTP/1.1"), 400, "bad_request_line"),
        ("absolute form", line("GET http://evil/api/livez HTTP/1.1"), 400, "bad_target"),
        ("authority form", line("CONNECT evil:80 HTTP/1.1"), 400, "bad_target"),
        ("a fragment", line("GET /api/livez#x HTTP/1.1"), 400, "bad_target"),
        ("a letter outside ASCII in the target", line("GET /api/livez?q=\u{e4} HTTP/1.1"), 400, "bad_target"),
        ("two hosts", get("Host: y\r\n"), 400, "bad_host"),
        ("two equal hosts", get("Host: x\r\n"), 400, "bad_host"),
        ("no host", b"GET /api/livez HTTP/1.1\r\n\r\n".to_vec(), 400, "bad_host"),
        ("8 KiB target", line(&format!("GET /{} HTTP/1.1", "a".repeat(8192))), 414, "target_too_long"),
        ("a target without an end", format!("GET /{long}").into_bytes(), 414, "target_too_long"),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400, "bad_request_line"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), 400, "bad_request_line"),
        ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 400, "bad_request_line"),
        ("three empty lines", b"\r\n\r\n\r\n".to_vec(), 400, "bad_request_line"),
    ]
}

/// What stands before the bad request is answered, it gets one problem, and what stands behind it nothing.
fn judge(name: &str, text: &str, before: usize, (status, code): (u16, &str)) -> Result<(), String> {
    let all = answers(text);
    let wrong = |what: &str| Err(format!("{name}: {what}: {text}"));
    if all.len() != before + 1 || all.iter().take(before).any(|answer| answer.status != 200) {
        return wrong("not one answer each");
    }
    let Some(last) = all.last() else { return wrong("no answer") };
    let body: serde_json::Value = serde_json::from_str(&last.body).unwrap_or_default();
    let head = last.head.to_lowercase();
    if last.status != status || body["code"] != code || body["status"] != status || body["detail"].as_str().is_none_or(str::is_empty) {
        return wrong("not the refusal");
    }
    if !head.contains("content-type: application/problem+json") || !head.contains("connection: close") || !head.contains("x-request-id: ") {
        return wrong("not a whole answer");
    }
    Ok(())
}

#[actix_web::test]
async fn h3_a_request_in_bad_form_gets_one_problem_and_nothing_behind_it_is_read() {
    let api = Api::start().await;
    let mut dice = StdRng::seed_from_u64(20260401);
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for (name, bad, status, code) in cases() {
        for before in [0, 2] {
            let bytes = [GOOD.repeat(before).as_bytes(), &bad, BEHIND.as_bytes()].concat();
            let most = if bytes.len() > 1000 { 5000 } else { 9 };
            for pieces in [vec![&*bytes], cut(&mut dice, &bytes, most)] {
                let text = talk(&api, &pieces).await;
                tried += 1;
                wrong.extend(judge(name, &text, before, (status, code)).err());
            }
        }
        // nobody else noticed
        api.get(As::Nobody, "/api/livez").await.expect(200);
    }
    println!("H3: {tried} connections, {} not as they should be", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    api.stop().await;
}

/// Requests in proper form, and the status of each answer.
fn proper(dice: &mut StdRng) -> (String, Vec<u16>) {
    const CHUNKED: &str =
        "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let forms: [(&str, String, u16); 9] = [
        ("get", GOOD.to_owned(), 200),
        ("an empty line before", format!("\r\n{GOOD}"), 200),
        (
            "odd but proper headers",
            "GET /api/livez?q=gr%C3%B6%C3%9Fe&r=[1]{2}|3 HTTP/1.1\r\nhOsT:x\r\nX-A: \u{e4}\t b \r\nX-B:\r\n\r\n".to_owned(),
            200,
        ),
        ("keep-alive of old", "GET /api/livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(), 200),
        (
            "length",
            "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]".to_owned(),
            422,
        ),
        (
            "a body like a request",
            format!(
                "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{GOOD}",
                GOOD.len()
            ),
            400,
        ),
        ("chunks", format!("{CHUNKED}1\r\n[\r\n1;a=\"b;c\"\r\n]\r\n0\r\n\r\n"), 422),
        ("a chunk like the end", format!("{CHUNKED}5\r\n0\r\n\r\n\r\n0\r\n\r\n"), 422),
        ("trailers", format!("{CHUNKED}00002;x\r\n[]\r\n000\r\nA: b\r\nX-C:\r\n\r\n"), 422),
    ];
    let mut text = String::new();
    let mut statuses = Vec::new();
    for _ in 0..12 {
        let (_, form, status) = &forms[dice.random_range(0..forms.len())];
        text.push_str(form);
        statuses.push(*status);
    }
    text.push_str("GET /api/livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    statuses.push(200);
    // behind what the client said was its last
    text.push_str(BEHIND);
    (text, statuses)
}

#[actix_web::test]
async fn h3_requests_in_proper_form_are_answered_in_order_however_they_are_cut() {
    let api = Api::start().await;
    let mut dice = StdRng::seed_from_u64(20260402);
    for round in 0..60 {
        let (text, statuses) = proper(&mut dice);
        let most = [usize::MAX, 3, 50, 2000][round % 4].min(text.len());
        let pieces = if round % 4 == 0 { vec![text.as_bytes()] } else { cut(&mut dice, text.as_bytes(), most) };
        let got = talk(&api, &pieces).await;
        let found: Vec<u16> = answers(&got).iter().map(|answer| answer.status).collect();
        assert_eq!(found, statuses, "round {round}: {text}\n{got}");
    }
    api.stop().await;
}

#[actix_web::test]
async fn h3_behind_a_refusal_that_closes_there_is_no_second_answer() {
    let api = Api::start().await;
    let post = |length: usize| {
        format!("POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n")
    };
    for (name, bytes, status) in [
        ("too large by its length", format!("{}{BEHIND}{BEHIND}", post(99_999_999)), 413),
        ("closed by the client", format!("GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n{BEHIND}{BEHIND}"), 404),
        ("old", format!("GET /nothing HTTP/1.0\r\n\r\n{BEHIND}{BEHIND}"), 404),
    ] {
        let text = talk(&api, &[bytes.as_bytes()]).await;
        let found: Vec<u16> = answers(&text).iter().map(|answer| answer.status).collect();
        assert_eq!(found, [status], "{name}: {text}");
    }
    api.stop().await;
}

#[actix_web::test]
async fn s8_a_slow_head_is_ended_with_a_problem_also_on_a_connection_that_was_good() {
    let api = Api::with(Settings { head_timeout: Duration::from_millis(300), ..roomy() }, |_| {}).await;
    for before in ["", GOOD] {
        for slow in ["G", "GET /api/livez HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
            let mut socket = TcpStream::connect(api.address).await.unwrap();
            socket.write_all(before.as_bytes()).await.unwrap();
            if !before.is_empty() {
                let mut first = [0; 15];
                socket.read_exact(&mut first).await.unwrap();
                assert_eq!(&first, b"HTTP/1.1 200 OK");
            }
            socket.write_all(slow.as_bytes()).await.unwrap();
            let mut text = String::new();
            let read = tokio::time::timeout(PATIENCE, socket.read_to_string(&mut text)).await;
            assert!(read.is_ok(), "a slow client is not held on to");
            assert!(text.contains("HTTP/1.1 408 ") && text.contains(r#""code":"timeout""#), "{text}");
        }
    }
    api.stop().await;
}

#[actix_web::test]
async fn s8_a_connection_that_never_asked_for_anything_is_closed_without_an_answer() {
    let api = Api::with(Settings { head_timeout: Duration::from_millis(200), ..roomy() }, |_| {}).await;
    let mut socket = TcpStream::connect(api.address).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut text)).await.expect("it is not held on to").unwrap();
    assert_eq!(text, "", "a client that opened it in advance would take this for the answer to its next request");
    api.stop().await;
}

/// Takes any certificate: the test is about what is inside.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[actix_web::test]
async fn h3_within_tls_the_form_is_held_as_strictly() {
    let api = Api::with(Settings { tls: true, ..roomy() }, |_| {}).await;
    let address = api.address;
    for (name, bad, status, code) in cases().into_iter().filter(|(_, bytes, ..)| bytes.len() < 1000) {
        let bytes = [GOOD.as_bytes(), &bad, BEHIND.as_bytes()].concat();
        let text = tokio::task::spawn_blocking(move || -> io::Result<String> {
            let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
            let session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
            let socket = std::net::TcpStream::connect(address)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let mut stream = StreamOwned::new(session, socket);
            io::Write::write_all(&mut stream, &bytes)?;
            let mut text = String::new();
            io::Read::read_to_string(&mut stream, &mut text)?;
            Ok(text)
        });
        let text = text.await.unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
        judge(name, &text, 1, (status, code)).unwrap();
    }
    // and the other protocol goes through
    api.get(As::Nobody, "/api/livez").await.expect(200);
    api.stop().await;
}
