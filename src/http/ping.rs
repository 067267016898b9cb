//! `/ping/{id}`: the way in for heartbeats, in the dialect of Healthchecks (its "Pinging API").
//!
//! The id is the heartbeat's key and the only credential, so it is treated as one: it is looked up by a salted digest,
//! it stands in no log, metric, audit entry or answer, and an address that tries one unknown id after another is held
//! back. Who knows an id is not held back for what others at the same address do.
//!
//! GET, HEAD and POST are all pings, as there: cron jobs have whatever tool they have. A browser or the preview of a link
//! that opens the address therefore pings, too; what it cannot do is create, arm, pause or resume anything: heartbeats are
//! made in the configuration alone.

use std::{collections::HashMap, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method,
        header::{ContentType, HeaderName, HeaderValue},
    },
    web,
};
use opspilot_detectors::heartbeat::{Config, Ping, What};
use opspilot_kernel::error::ErrorKind;
use opspilot_ledger::SignalBatchBuilder;
use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};

use super::{
    error::{ApiError, ApiResult, ProblemBody},
    ingest::body,
    limits::{Class, Client, origin_in},
    shell::rate_limited,
    state::AppState,
};

/// The path under which everything holds a secret.
const PREFIX: &str = "/ping/";

/// The path of a request as it may be shown.
pub(super) fn shown(path: &str) -> &str {
    if path.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX)) { "/ping/***" } else { path }
}

/// Whose pings are taken, by the digests of their keys. One for the process; clones are the same.
#[derive(Clone)]
pub struct Pings(Arc<Inner>);

struct Inner {
    /// Drawn anew by each process, so that how long a search takes says nothing about a key.
    salt: [u8; 32],
    known: RwLock<HashMap<[u8; 32], Arc<Known>>>,
    watched: RwLock<Config>,
}

struct Known {
    id: String,
    source: String,
}

impl Default for Pings {
    fn default() -> Pings {
        Pings(Arc::new(Inner { salt: rand::random(), known: RwLock::default(), watched: RwLock::default() }))
    }
}

impl std::fmt::Debug for Pings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pings").field("known", &self.0.known.read().len()).finish_non_exhaustive()
    }
}

impl Pings {
    /// From now on the pings of these heartbeats are taken, and no others; none at all without a configuration.
    pub fn know(&self, config: Option<&Config>) {
        let heartbeats = config.map(|config| config.heartbeats.as_slice()).unwrap_or_default();
        let known = heartbeats.iter().filter_map(|heartbeat| {
            let known = Known { id: heartbeat.id.clone(), source: heartbeat.source().to_owned() };
            Some((self.digest(heartbeat.key.as_ref()?.expose()), Arc::new(known)))
        });
        *self.0.known.write() = known.collect();
        *self.0.watched.write() = config.cloned().unwrap_or_default();
    }

    /// The heartbeats that are watched.
    pub(super) fn watched(&self) -> Config {
        self.0.watched.read().clone()
    }

    fn digest(&self, key: &str) -> [u8; 32] {
        Sha256::new().chain_update(self.0.salt).chain_update(key).finalize().into()
    }

    fn find(&self, key: &str) -> Option<Arc<Known>> {
        self.0.known.read().get(&self.digest(key)).cloned()
    }
}

/// What the last part of the path says.
fn what(word: &str) -> ApiResult<What> {
    match word {
        "start" => Ok(What::Start),
        "fail" => Ok(What::Fail(None)),
        "log" => Ok(What::Log),
        number if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => number
            .parse()
            .map(What::exit)
            .map_err(|_| ApiError::new(ErrorKind::Malformed, "bad_exit_code", "an exit code is a number from 0 to 255")),
        _ => Err(ApiError::new(ErrorKind::NotFound, "not_found", "behind the id stands nothing, start, fail, log, or an exit code")),
    }
}

/// Which run a ping is of: `?rid=…`.
fn run_of(query: &str) -> ApiResult<Option<&str>> {
    match query.split('&').find_map(|pair| pair.strip_prefix("rid=")) {
        Some(run) if Ping::is_run(run) => Ok(Some(run)),
        Some(_) => Err(ApiError::new(
            ErrorKind::Malformed,
            "bad_rid",
            "rid says which run it is: 1 to 64 letters, digits, - and _, such as a UUID",
        )),
        None => Ok(None),
    }
}

async fn take(request: HttpRequest, payload: web::Payload, state: web::Data<AppState>, what: What) -> ApiResult<HttpResponse> {
    let key = request.match_info().get("id").unwrap_or_default();
    let Some(known) = state.pings.find(key) else {
        return Err(match state.limiter.take(Client::address(origin_in(&request).address), Class::Ping, None) {
            Ok(_) => ApiError::new(ErrorKind::NotFound, "not_found", "there is no heartbeat with this id"),
            Err(standing) => rate_limited(standing, "unknown ids").and_close(),
        });
    };
    let run = run_of(request.query_string())?;
    // somebody who knows one id must not be able to fill the storage with it
    let client = Client::Key(format!("ping:{}", known.id));
    state.limiter.take(client, Class::Write, None).map_err(|standing| rate_limited(standing, "pings of one heartbeat"))?;
    let mut place = state.intake.place();
    let bytes = match *request.method() {
        Method::POST => body::read(&request, &mut payload.into_inner(), &mut place).await?,
        _ => web::Bytes::new(),
    };
    let kept = bytes.get(..Ping::BODY_BYTES).unwrap_or(&bytes);
    let text = String::from_utf8_lossy(kept).replace('\0', "\u{fffd}");
    let now = state.clock.now();
    let mut batch = SignalBatchBuilder::with_capacity(now, text.len());
    Ping { heartbeat: &known.id, what, run }.signal(now, &known.source, &text, |signal| batch.push(signal));
    // said only once it is on the disk
    state.ledger.append(batch.seal()).await?;
    let limit = (HeaderName::from_static("ping-body-limit"), HeaderValue::from(Ping::BODY_BYTES));
    Ok(HttpResponse::Ok().content_type(ContentType::plaintext()).insert_header(limit).body("OK"))
}

/// A sign of life. HEAD does the same.
#[utoipa::path(get, path = "/ping/{id}", tag = "heartbeats", params(("id" = String, Path, description = "The heartbeat's key: a secret"), ("rid" = Option<String>, Query, description = "Which run it is, where runs overlap")),
    responses((status = 200, description = "It is stored", body = String, content_type = "text/plain"),
        (status = 400, description = "The rid is none", body = ProblemBody),
        (status = 404, description = "No heartbeat has this key", body = ProblemBody),
        (status = 429, description = "Too many unknown ids from this address, too many pings, or the intake is full", body = ProblemBody),
        (status = 503, description = "The storage does not take writes", body = ProblemBody)))]
pub async fn get(request: HttpRequest, payload: web::Payload, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    take(request, payload, state, What::Success).await
}

/// A sign of life, with whatever is worth keeping: of the body, the first 10,000 bytes are.
#[utoipa::path(post, path = "/ping/{id}", tag = "heartbeats", params(("id" = String, Path, description = "The heartbeat's key: a secret"), ("rid" = Option<String>, Query, description = "Which run it is, where runs overlap")),
    request_body(description = "Anything, at most 8 MiB", content((String = "text/plain"))),
    responses((status = 200, description = "It is stored", body = String, content_type = "text/plain"),
        (status = 400, description = "The rid is none", body = ProblemBody),
        (status = 404, description = "No heartbeat has this key", body = ProblemBody), (status = 413, description = "More than 8 MiB", body = ProblemBody),
        (status = 429, description = "Too many unknown ids from this address, too many pings, or the intake is full", body = ProblemBody),
        (status = 503, description = "The storage does not take writes", body = ProblemBody)))]
pub async fn post(request: HttpRequest, payload: web::Payload, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    take(request, payload, state, What::Success).await
}

/// A run begins (`start`), has failed (`fail`) or is over with an exit code (`0` to `255`), or something is only to be kept (`log`).
#[utoipa::path(get, path = "/ping/{id}/{what}", tag = "heartbeats",
    params(("id" = String, Path, description = "The heartbeat's key: a secret"), ("what" = String, Path, description = "start, fail, log, or an exit code"),
        ("rid" = Option<String>, Query, description = "Which run it is, where runs overlap")),
    responses((status = 200, description = "It is stored", body = String, content_type = "text/plain"),
        (status = 400, description = "An exit code above 255, or a rid that is none", body = ProblemBody), (status = 404, description = "No heartbeat has this key", body = ProblemBody),
        (status = 429, description = "Too many unknown ids from this address, too many pings, or the intake is full", body = ProblemBody),
        (status = 503, description = "The storage does not take writes", body = ProblemBody)))]
pub async fn get_what(request: HttpRequest, payload: web::Payload, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let what = what(request.match_info().get("what").unwrap_or_default())?;
    take(request, payload, state, what).await
}

/// The same, with whatever is worth keeping: of the body, the first 10,000 bytes are.
#[utoipa::path(post, path = "/ping/{id}/{what}", tag = "heartbeats",
    params(("id" = String, Path, description = "The heartbeat's key: a secret"), ("what" = String, Path, description = "start, fail, log, or an exit code"),
        ("rid" = Option<String>, Query, description = "Which run it is, where runs overlap")),
    request_body(description = "Anything, at most 8 MiB", content((String = "text/plain"))),
    responses((status = 200, description = "It is stored", body = String, content_type = "text/plain"),
        (status = 400, description = "An exit code above 255, or a rid that is none", body = ProblemBody), (status = 404, description = "No heartbeat has this key", body = ProblemBody),
        (status = 413, description = "More than 8 MiB", body = ProblemBody),
        (status = 429, description = "Too many unknown ids from this address, too many pings, or the intake is full", body = ProblemBody),
        (status = 503, description = "The storage does not take writes", body = ProblemBody)))]
pub async fn post_what(request: HttpRequest, payload: web::Payload, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    get_what(request, payload, state).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_path_says_is_the_dialects() {
        let read = |word: &str| what(word).map_err(|error| error.code());
        assert_eq!(read("start"), Ok(What::Start));
        assert_eq!(read("fail"), Ok(What::Fail(None)));
        assert_eq!(read("log"), Ok(What::Log));
        assert_eq!((read("0"), read("000"), read("255")), (Ok(What::Success), Ok(What::Success), Ok(What::Fail(Some(255)))));
        assert_eq!((read("256"), read("99999999999")), (Err("bad_exit_code"), Err("bad_exit_code")));
        assert_eq!((read("-1"), read(""), read("Start")), (Err("not_found"), Err("not_found"), Err("not_found")));
    }

    #[test]
    fn a_run_is_named_by_its_rid() {
        let read = |query| run_of(query).map_err(|error| error.code());
        assert_eq!(read("a=1&rid=4F5e1a3c-9b1d-4a55-9a53-d0d6cc0f9d11"), Ok(Some("4F5e1a3c-9b1d-4a55-9a53-d0d6cc0f9d11")));
        assert_eq!((read(""), read("grid=1"), read("rid=1")), (Ok(None), Ok(None), Ok(Some("1"))));
        assert_eq!(
            (read("rid="), read("rid=%20"), read(&format!("rid={}", "a".repeat(65)))),
            (Err("bad_rid"), Err("bad_rid"), Err("bad_rid"))
        );
    }

    #[test]
    fn a_path_with_a_secret_in_it_is_not_shown() {
        for path in ["/ping/0123456789abcdef", "/ping/0123456789abcdef/start", "/PING/0123456789abcdef", "/ping/0123456789abcdef/a/b"] {
            assert_eq!(shown(path), "/ping/***");
        }
        assert_eq!((shown("/api/events"), shown("/ping")), ("/api/events", "/ping"));
    }
}
