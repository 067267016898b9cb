//! Signals in and found again, over real sockets.

use std::{io::Write as _, time::Duration};

use opspilot_kernel::principal::Role;
use serde_json::{Value, json};

use super::support::{Api, As, Got, send};

async fn api() -> (Api, String) {
    let api = Api::start().await;
    let token = api.someone("ada", Role::Operator).await;
    let key = api.key(&token, "integrator").await;
    (api, key)
}

async fn post(api: &Api, key: &str, kind: &str, body: impl Into<Vec<u8>>) -> Got {
    send(api.request(As::Key(key), "post", "/api/events").header("content-type", kind).body(body.into())).await
}

const LINES: &str = "application/x-ndjson";
const JSON: &str = "application/json";

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

async fn found(api: &Api, query: &str) -> Value {
    let token = api.login("ada").await;
    api.get(As::Token(&token), &format!("/api/signals{query}")).await.expect(200).body
}

#[actix_web::test]
async fn accepted_events_are_stored_when_the_answer_comes_and_are_found() {
    let (api, key) = api().await;
    let one = post(&api, &key, JSON, r#"{"source":"checkout","message":"payment failed","severity":"error","labels":{"host":"h1"}}"#)
        .await
        .expect(202);
    assert_eq!(one.body, json!({ "accepted": 1, "duplicate": 0, "rejected": [], "last_seq": 1 }));
    let body = r#"[{"source":"checkout","name":"cpu","value":93.5,"unit":"percent","timestamp":"2026-01-01T00:00:00Z"},
        {"source":"am","kind":"alert","name":"Down","status":"resolved","title":"T","id":"x"}]"#;
    assert_eq!(post(&api, &key, JSON, body).await.expect(202).body["last_seq"], 3);
    let lines = "{\"source\":\"a\",\"message\":\"one\"}\n\n{\"source\":\"a\"}\r\n{\"source\":\"a\",\"message\":\"two\"}\n{oops}\n";
    let got = post(&api, &key, LINES, lines).await.expect(202).body;
    assert_eq!((&got["accepted"], &got["last_seq"]), (&json!(2), &json!(5)));
    assert_eq!(got["rejected"][0], json!({ "index": 1, "code": "required", "detail": "message is required for a log" }));
    assert_eq!((&got["rejected"][1]["index"], &got["rejected"][1]["code"]), (&json!(3), &json!("malformed")));

    let all = found(&api, "").await;
    assert_eq!(all["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!((&all["next_cursor"], &all["scanned_until"]), (&Value::Null, &json!(5)));
    let first = &all["items"][0];
    assert_eq!(first["message"], "payment failed");
    for field in ["seq", "id", "kind", "source", "timestamp", "severity", "message", "name", "value", "labels"] {
        assert!(first.get(field).is_some(), "{field}");
    }
    assert_eq!(all["items"][1]["timestamp"], "2026-01-01T00:00:00.000Z");
    let seqs = |page: &Value| page["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(seqs(&found(&api, "?source=checkout&kind=metric").await), [2]);
    assert_eq!(seqs(&found(&api, "?q=payment").await), [1]);
    assert_eq!(seqs(&found(&api, "?until=2026-06-01T00:00:00Z").await), [2]);
    let page = found(&api, "?limit=2").await;
    assert_eq!(seqs(&page), [1, 2]);
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(seqs(&found(&api, &format!("?limit=3&cursor={cursor}")).await), [3, 4, 5]);
    let token = api.login("ada").await;
    for wrong in ["?kind=x", "?sorce=a", "?limit=501", "?since=yesterday", "?cursor=x"] {
        api.get(As::Token(&token), &format!("/api/signals{wrong}")).await.expect(422);
    }
}

#[actix_web::test]
async fn when_no_event_is_acceptable_the_answer_says_why() {
    let (api, key) = api().await;
    let got = post(&api, &key, JSON, r#"{"source":"a","mesage":"m"}"#).await.expect(422).body;
    assert_eq!(
        got["errors"],
        json!([{ "pointer": "/mesage", "code": "unknown_field", "detail": "unknown field mesage; did you mean message?" }])
    );
    let got = post(&api, &key, JSON, r#"[{"source":"a"},{}]"#).await.expect(422).body;
    assert_eq!((&got["errors"][0]["pointer"], &got["errors"][1]["pointer"]), (&json!("/0/message"), &json!("/1/source")));
    for (body, status, code) in [
        ("[]", 422, "no_events"),
        ("", 400, "malformed"),
        ("{", 400, "malformed"),
        (r#"{"source":"a","source":"b"}"#, 400, "duplicate_key"),
    ] {
        let got = post(&api, &key, JSON, body).await.expect(status);
        assert_eq!(got.code(), code, "{body}");
    }
    // each line is a document of its own, and so is each event of a list
    let got = post(&api, &key, LINES, "{oops}\n\nx\n").await.expect(422).body;
    let named = |at: usize| (got["errors"][at]["pointer"].as_str().unwrap(), got["errors"][at]["code"].as_str().unwrap());
    assert_eq!((named(0), named(1)), (("/0", "malformed"), ("/1", "malformed")), "{got}");
    assert!(got["errors"][1]["detail"].as_str().unwrap().starts_with("line 3"), "{got}");
    assert_eq!(got["rejected"][1]["index"], 1, "{got}");
    let got = post(&api, &key, JSON, r#"[{"source":"a","source":"b"}]"#).await.expect(422).body;
    assert_eq!(got["errors"][0]["pointer"], "/0/source");
    assert_eq!(post(&api, &key, LINES, "\n").await.expect(422).code(), "no_events");
    assert_eq!(found(&api, "").await["items"], json!([]), "nothing of it was stored");
}

#[actix_web::test]
async fn only_who_may_send_signals_may() {
    let (api, key) = api().await;
    let event = r#"{"source":"a","message":"m"}"#;
    post(&api, &key, JSON, event).await.expect(202);
    let viewer = api.someone("vi", Role::Viewer).await;
    api.post(As::Token(&viewer), "/api/events", serde_json::from_str(event).unwrap()).await.expect(403);
    api.post(As::Nobody, "/api/events", serde_json::from_str(event).unwrap()).await.expect(401);
    api.get(As::Key(&key), "/api/signals").await.expect(403);
}

#[actix_web::test]
async fn h1_hostile_bodies_get_a_status_and_never_more() {
    let (api, key) = api().await;
    let value = |text: &str| format!(r#"{{"source":"a","name":"n","value":{text}}}"#).into_bytes();
    let keys = (0..200_000).map(|index| format!(r#""k{index}":0,"#)).collect::<String>();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("100 k deep", "[".repeat(100_000).into_bytes(), 400),
        ("100 k deep and closed", [vec![b'['; 100_000], vec![b']'; 100_000]].concat(), 400),
        ("a string of 10 MB", format!(r#"{{"source":"a","message":"{}"}}"#, "x".repeat(10_000_000)).into_bytes(), 413),
        ("1e400", value("1e400"), 400),
        ("NaN", value("NaN"), 400),
        ("-0", value("-0"), 202),
        ("2^64", value("18446744073709551616"), 202),
        ("1e-400", value("1e-400"), 202),
        ("lone surrogate", br#"{"source":"a","message":"\ud800"}"#.to_vec(), 400),
        ("invalid UTF-8", b"{\"source\":\"a\",\"message\":\"\xff\"}".to_vec(), 400),
        ("NUL", br#"{"source":"a","message":"\u0000"}"#.to_vec(), 422),
        ("byte order mark", b"\xef\xbb\xbf{\"source\":\"a\",\"message\":\"m\"}".to_vec(), 400),
        ("duplicate key", br#"{"source":"a","message":"m","message":"m"}"#.to_vec(), 400),
        ("duplicate label", br#"{"source":"a","message":"m","labels":{"a":"1","\u0061":"2"}}"#.to_vec(), 400),
        ("very many keys", format!(r#"{{{keys}"source":"a","message":"m"}}"#).into_bytes(), 422),
        (
            "very many labels",
            format!(r#"{{"source":"a","message":"m","labels":{{{}"z":""}}}}"#, keys.replace(":0,", ":\"\",")).into_bytes(),
            422,
        ),
    ];
    for (name, body, status) in cases {
        for kind in [JSON, LINES] {
            let got = post(&api, &key, kind, body.clone()).await;
            // a line is a document of its own: a broken one is an event that is not acceptable
            let status = if kind == LINES && status == 400 { 422 } else { status };
            assert_eq!(got.status, status, "{name} as {kind}: {}", got.body);
        }
    }
    post(&api, &key, JSON, r#"{"source":"a","message":"m"}"#).await.expect(202);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"] {
        assert_eq!(post(&api, &key, kind, r#"{"source":"a","message":"m"}"#).await.status, 415, "{kind}");
    }
}

#[actix_web::test]
async fn h2_compressed_bodies_are_taken_and_bombs_are_not() {
    let (api, key) = api().await;
    let line = "{\"source\":\"a\",\"message\":\"m\"}\n".repeat(1000);
    let compressed = async |encoding: &'static str, body: Vec<u8>| {
        send(
            api.request(As::Key(&key), "post", "/api/events").header("content-type", LINES).header("content-encoding", encoding).body(body),
        )
        .await
    };
    assert_eq!(compressed("gzip", gzip(line.as_bytes())).await.expect(202).body["accepted"], 1000);
    assert_eq!(compressed("zstd", zstd::encode_all(line.as_bytes(), 1).unwrap()).await.expect(202).body["accepted"], 1000);
    let zeros = vec![b'\n'; 32 << 20];
    compressed("gzip", gzip(&zeros)).await.expect(413);
    compressed("zstd", zstd::encode_all(&*zeros, 1).unwrap()).await.expect(413);
    compressed("gzip, gzip", gzip(&gzip(line.as_bytes()))).await.expect(415);
    compressed("br", line.clone().into_bytes()).await.expect(415);
    compressed("gzip", line.into_bytes()).await.expect(400);
}

#[actix_web::test]
async fn the_same_request_again_is_taken_once() {
    let (api, key) = api().await;
    let send_it = async |idempotency: &'static str, body: &'static str| {
        send(
            api.request(As::Key(&key), "post", "/api/events")
                .header("content-type", JSON)
                .header("idempotency-key", idempotency)
                .body(body),
        )
        .await
    };
    let body = r#"[{"source":"a","message":"1"},{"source":"a","message":"2"},{}]"#;
    let first = send_it("k1", body).await.expect(202);
    let again = send_it("k1", body).await.expect(202);
    assert_eq!((first.body, "true"), (again.body.clone(), again.header("idempotency-replayed")));
    assert_eq!(send_it("k1", "[{\"source\":\"a\",\"message\":\"3\"}]").await.expect(422).code(), "idempotency_mismatch");
    send_it("k2", body).await.expect(202);
    let all = found(&api, "").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 4, "each key once");
    assert!(all["items"].as_array().unwrap().iter().all(|item| item["id"].is_null()), "no id was sent, and none is shown: {all}");
    let reserved = send_it("k3", r#"{"source":"a","message":"1","id":"idempotency-key:1"}"#).await.expect(422).body;
    assert_eq!((&reserved["errors"][0]["pointer"], &reserved["errors"][0]["code"]), (&json!("/id"), &json!("reserved")));
}

#[actix_web::test]
async fn p2_the_same_event_again_is_a_duplicate() {
    let (api, key) = api().await;
    let body = r#"[{"source":"a","message":"1","id":"e1"},{"source":"b","message":"1","id":"e1"},{"source":"a","message":"1","id":"e1"}]"#;
    let got = post(&api, &key, JSON, body).await.expect(202).body;
    assert_eq!((&got["accepted"], &got["duplicate"]), (&json!(2), &json!(1)));
    let got = post(&api, &key, JSON, body).await.expect(202).body;
    assert_eq!((&got["accepted"], &got["duplicate"], &got["last_seq"]), (&json!(0), &json!(3), &json!(2)));
}

#[actix_web::test]
async fn a_body_in_pieces_beyond_the_bound_is_cut_off() {
    let (api, key) = api().await;
    let head = format!(
        "POST /api/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    let raw = api.raw(&[head.into_bytes(), chunk.repeat(9)].concat(), Duration::from_secs(20)).await;
    assert_eq!(raw.status(), Some(413), "{raw:?}");
    assert!(raw.closed, "{raw:?}");
}
