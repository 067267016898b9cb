//! `Idempotency-Key`: a POST that creates is done once, however often it is sent.
//!
//! The answer is stored in the transaction of the effect, under the caller,
//! method, route and key, so that nobody sees another's keys. What is stored of
//! the body is a keyed hash: bodies may hold passwords. While a request is under
//! way its key is held in memory; a second one meanwhile gets 409.

use std::{
    collections::HashSet,
    future::{Future, Ready, ready},
    sync::Arc,
};

use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, dev::Payload, http::StatusCode, web};
use opspilot_kernel::error::ErrorKind;
use opspilot_ledger::{Idempotent, LedgerError, Priority, StoredAnswer, Tx};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

use super::{
    error::{ApiError, ApiResult},
    guard::{Principal, Via},
    state::AppState,
};

/// The longest key we take.
pub const MAX_KEY: usize = 255;
/// Begins the ids of events that have none of their own and came under a key; no sender may use it.
pub const RESERVED_ID: &str = "idempotency-key:";

/// Keys of requests that are under way.
#[derive(Debug, Default, Clone)]
pub struct InFlight(Arc<Mutex<HashSet<(String, String)>>>);

struct Held {
    all: InFlight,
    key: (String, String),
}

impl InFlight {
    fn hold(&self, scope: &str, key: &str) -> ApiResult<Held> {
        let key = (scope.to_owned(), key.to_owned());
        if self.0.lock().insert(key.clone()) {
            return Ok(Held { all: self.clone(), key });
        }
        let detail = "the first request with this Idempotency-Key is still under way";
        Err(ApiError::new(ErrorKind::Conflict, "idempotency_in_flight", detail))
    }
}

#[cfg(test)]
impl InFlight {
    pub(super) fn is_held(&self, scope: &str, key: &str) -> bool {
        self.0.lock().contains(&(scope.to_owned(), key.to_owned()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.key);
    }
}

/// The request's `Idempotency-Key`, if it has one, with everything that scopes it.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    key: Option<String>,
    scope: String,
}

impl FromRequest for IdempotencyKey {
    type Error = ApiError;
    type Future = Ready<ApiResult<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let who = match request.extensions().get::<Arc<Principal>>().map(|principal| (principal.user.clone(), principal.via.clone())) {
            Some((_, Via::Key(id))) => format!("key:{id}"),
            Some((user, _)) => format!("user:{user}"),
            None => "anonymous".to_owned(),
        };
        let scope = format!("{who} {} {}", request.method(), request.path());
        let key = match request.headers().get("idempotency-key").map(|key| key.to_str()) {
            None => None,
            Some(Ok(key)) if !key.is_empty() && key.len() <= MAX_KEY => Some(key.to_owned()),
            Some(_) => {
                let detail = format!("an Idempotency-Key is 1 to {MAX_KEY} visible characters");
                return ready(Err(ApiError::new(ErrorKind::Malformed, "bad_idempotency_key", detail)));
            }
        };
        ready(Ok(IdempotencyKey { key, scope }))
    }
}

/// What a handler answers when it did something: kept for a repeat of the request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body. What must not be stored is added by the handler after [`IdempotencyKey::run`].
    pub body: Value,
    /// Whether this is the first answer again.
    pub replayed: bool,
}

impl Answer {
    /// The answer of a handler that just did its work.
    pub fn new(status: StatusCode, body: Value) -> Answer {
        Answer { status, body, replayed: false }
    }

    fn again(stored: &StoredAnswer) -> ApiResult<Answer> {
        let status = StatusCode::from_u16(stored.status).map_err(ApiError::internal)?;
        let body = serde_json::from_str(&stored.body).map_err(ApiError::internal)?;
        Ok(Answer { status, body, replayed: true })
    }

    /// The answer as it goes out.
    pub fn respond(self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.replayed {
            response.insert_header(("Idempotency-Replayed", "true"));
        }
        response.json(self.body)
    }
}

/// What a job of [`IdempotencyKey::run`] answers with.
pub fn answered(status: StatusCode, body: &impl Serialize) -> Result<(StatusCode, Value), LedgerError> {
    let body = serde_json::to_value(body).map_err(|error| LedgerError::Internal(error.to_string()))?;
    Ok((status, body))
}

fn mismatch() -> ApiError {
    ApiError::new(ErrorKind::Invalid, "idempotency_mismatch", "this Idempotency-Key was used with another body")
}

impl IdempotencyKey {
    /// Whether the client sent one.
    pub fn is_given(&self) -> bool {
        self.key.is_some()
    }

    /// Does `job` in one transaction, once for this key; answers a repeat with what it answered first.
    ///
    /// The job goes on if the client hangs up. Without a key it is simply done.
    pub async fn run<F>(self, state: &web::Data<AppState>, body: &[u8], job: F) -> ApiResult<Answer>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<(StatusCode, Value), LedgerError> + Send + 'static,
    {
        let Some(key) = self.key else {
            let (status, body) = state.ledger.write(Priority::Control, job).await?;
            return Ok(Answer::new(status, body));
        };
        let held = state.in_flight.hold(&self.scope, &key)?;
        let scope = self.scope;
        let fingerprint = state.auth.fingerprint(body);
        let outcome = state.ledger.write(Priority::Control, move |tx| {
            // let go when the job is over: a repeat that comes then waits in the writer's queue and finds the row
            let _held = held;
            match tx.idempotent(&scope, &key, &fingerprint)? {
                Idempotent::Replay(stored) => Ok(Outcome::Replay(stored)),
                Idempotent::Mismatch => Ok(Outcome::Mismatch),
                Idempotent::New => {
                    let (status, body) = job(tx)?;
                    let stored = StoredAnswer { status: status.as_u16(), body: body.to_string() };
                    tx.idempotent_answer(&scope, &key, &fingerprint, &stored)?;
                    Ok(Outcome::Done(status, body))
                }
            }
        });
        match outcome.await? {
            Outcome::Done(status, body) => Ok(Answer::new(status, body)),
            Outcome::Replay(stored) => Answer::again(&stored),
            Outcome::Mismatch => Err(mismatch()),
        }
    }
}

/// Work that has a transaction of its own, once for a key: for signals, which are stored in batches of many requests.
impl IdempotencyKey {
    /// Names every part of the work, so that doing it again after a crash finds what is done already.
    pub fn seed(&self, state: &AppState) -> Option<String> {
        let key = self.key.as_ref()?;
        let named = state.auth.fingerprint(format!("{} {key}", self.scope).as_bytes());
        Some(hex::encode(named.get(..12).unwrap_or_default()))
    }

    /// Does `work`, whose parts are named after [`IdempotencyKey::seed`] and so are done once by themselves; answers a
    /// repeat with what it answered first.
    pub async fn run_apart<F>(self, state: &web::Data<AppState>, body: &[u8], work: F) -> ApiResult<Answer>
    where
        F: Future<Output = ApiResult<(StatusCode, Value)>>,
    {
        let Some(key) = self.key else {
            let (status, body) = work.await?;
            return Ok(Answer::new(status, body));
        };
        let _held = state.in_flight.hold(&self.scope, &key)?;
        let (scope, fingerprint) = (self.scope, state.auth.fingerprint(body));
        let known = {
            let (scope, key) = (scope.clone(), key.clone());
            state.ledger.write(Priority::Control, move |tx| tx.idempotent(&scope, &key, &fingerprint)).await?
        };
        match known {
            Idempotent::Replay(stored) => Answer::again(&stored),
            Idempotent::Mismatch => Err(mismatch()),
            Idempotent::New => {
                let (status, body) = work.await?;
                let stored = StoredAnswer { status: status.as_u16(), body: body.to_string() };
                state.ledger.write(Priority::Control, move |tx| tx.idempotent_answer(&scope, &key, &fingerprint, &stored)).await?;
                Ok(Answer::new(status, body))
            }
        }
    }
}

enum Outcome {
    Done(StatusCode, Value),
    Replay(StoredAnswer),
    Mismatch,
}
