//! What every request passes on its way in, and every answer on its way out.
//!
//! In: a request id, bounds on the head, where it came from, who sent it, its
//! rate limit, proof against forgery for cookie sessions. Out: errors as
//! problems, security headers, rate headers, metrics, the log.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use actix_web::{
    Error, HttpMessage, HttpRequest, HttpResponse, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        ConnectionType, Method, StatusCode, Version,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};
use futures_util::FutureExt as _;
use opspilot_kernel::{error::ErrorKind, principal::Actor};
use subtle::ConstantTimeEq as _;

use super::{
    auth::Identity,
    error::ApiError,
    framing::{Connection, Flaw, MAX_HEAD, MAX_TARGET, Turn},
    guard::{Principal, Via},
    limits::{self, Class, Client, Origin, Standing},
    origins, ping,
    state::AppState,
    unread::Unread,
};

/// The header that shows that our own page sent a request with a cookie.
pub const CSRF_HEADER: &str = "x-csrf-token";

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
                   form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'";
/// The viewer of the API document writes styles and markup as it goes.
const CSP_DOCS: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
                        base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Names a request, in its answer and in the log.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    /// The id of the request that is being handled.
    pub fn of(request: &HttpRequest) -> RequestId {
        request.extensions().get::<RequestId>().cloned().unwrap_or_else(|| RequestId("".into()))
    }
}

/// Numbers requests under a random start, so that ids neither repeat over restarts nor tell how many there were.
#[derive(Debug)]
pub struct RequestIds(AtomicU64);

impl Default for RequestIds {
    fn default() -> RequestIds {
        RequestIds(AtomicU64::new(rand::random()))
    }
}

impl RequestIds {
    fn next(&self) -> RequestId {
        // an odd factor permutes the numbers, so that neighbours do not look alike
        let number = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        RequestId(format!("{number:016x}").into())
    }
}

/// The middleware around everything.
pub async fn shell<B: MessageBody + 'static>(mut request: ServiceRequest, next: Next<B>) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(state) = request.app_data::<web::Data<AppState>>().cloned() else {
        return Err(ApiError::internal("the server was built without its state").into());
    };
    let started = state.clock.elapsed();
    let id = state.request_ids.next();
    let docs = request.path().starts_with("/api/docs/");
    request.extensions_mut().insert(id.clone());
    // over when this function ends: then the answer is made, and the next request is read
    let turn = Connection::turn(&request);
    let flaw = || turn.as_ref().and_then(Turn::flaw).map(flawed);
    let unread = Unread::hold(&mut request, turn.as_ref());
    let mut passed = Passed::default();
    let entered = match flaw() {
        Some(error) => Err(error),
        None => enter(&state, &request, &mut passed).await,
    };
    let mut answer = match entered {
        Err(error) => {
            let answer = error.render(&id.0);
            log_cause(&state, &id, request.path(), &error);
            request.into_response(answer)
        }
        Ok(()) => {
            // the router must be the request's only holder, so nothing of it is kept here but its path
            let path = request.path().to_owned();
            let broken = |error: ApiError| {
                let error = flaw().unwrap_or(error);
                if let Some(turn) = turn.as_ref().filter(|_| error.closes()) {
                    turn.close();
                }
                Broken { error, id: id.clone(), standing: passed.standing, tls: passed.tls(), docs, unread: unread.clone() }
            };
            match AssertUnwindSafe(next.call(request)).catch_unwind().await {
                Ok(Ok(answer)) => match flaw() {
                    // whatever the handler made of a body that broke off
                    Some(error) => ServiceResponse::new(answer.into_parts().0, error.render(&id.0)),
                    None => finish(&state, &id, answer.map_into_boxed_body()),
                },
                Ok(Err(error)) => return Err(broken(problem_of(&state, &id, &path, &error)).into()),
                Err(_) => {
                    // the panic hook has logged where; the worker and everybody else go on
                    slog::error!(state.log, "a handler panicked"; "request.id" => &*id.0, "path" => ping::shown(&path));
                    return Err(broken(ApiError::internal("the handler panicked")).into());
                }
            }
        }
    };
    decorate(answer.headers_mut(), passed.standing, &id, passed.tls(), docs);
    if let Some(unread) = unread {
        let (head, response) = answer.into_parts();
        answer = ServiceResponse::new(head, unread.hand_to(response));
    }
    if let Some(turn) = &turn {
        // heads are used again, with the version of whoever had them last, which would count for the closing of a connection
        let head = answer.response_mut().head_mut();
        head.version = Version::HTTP_11;
        if head.connection_type() == ConnectionType::Close {
            turn.close();
        }
    }
    refused(&state, &answer, &passed);
    state.metrics.answered(&answer, state.clock.elapsed().saturating_sub(started));
    Ok(answer)
}

/// What was found out on the way in.
#[derive(Default)]
struct Passed {
    origin: Option<Origin>,
    principal: Option<Arc<Principal>>,
    standing: Option<Standing>,
    presented: bool,
}

impl Passed {
    fn tls(&self) -> bool {
        self.origin.is_some_and(|origin| origin.tls)
    }
}

async fn enter(state: &AppState, request: &ServiceRequest, passed: &mut Passed) -> Result<(), ApiError> {
    check_head(request)?;
    let origin = limits::origin_of(request, &state.settings.trusted_proxies, state.settings.tls);
    passed.origin = Some(origin);
    request.extensions_mut().insert(origin);

    let class = Class::of(request.method(), request.path());
    let public = class == Class::Exempt && request.path() != "/api/metrics";
    passed.presented = has_credential(request.headers());
    let principal = if public { None } else { identify(state, request, origin, passed).await? };
    let client = if class == Class::Login { Client::address(origin.address) } else { Client::of(principal.as_deref(), origin.address) };
    let standing = state.limiter.take(client, class, principal.as_ref().map(|principal| principal.role));
    passed.standing = Some(match standing {
        Ok(standing) | Err(standing) => standing,
    });
    if let Err(standing) = standing {
        return Err(rate_limited(standing, "requests"));
    }
    check_forgery(state, request, principal.as_deref(), origin.tls, class)?;
    if let Some(principal) = principal {
        passed.principal = Some(Arc::clone(&principal));
        request.extensions_mut().insert(principal);
    }
    Ok(())
}

/// Who sends the request. An address that shows one unknown credential after another is held back before the ledger is
/// asked about the next; who is known already is not held back for what others at the same address do.
async fn identify(
    state: &AppState,
    request: &ServiceRequest,
    origin: Origin,
    passed: &mut Passed,
) -> Result<Option<Arc<Principal>>, ApiError> {
    let may_ask = || state.limiter.unknown(origin.address).is_ok();
    match state.auth.identify(request.headers(), may_ask).await? {
        Identity::Known(principal) => Ok(Some(principal)),
        Identity::Nobody => Ok(None),
        Identity::Refused => {
            // it was asked about in any case; the next one may not be
            state.limiter.was_unknown(origin.address);
            Ok(None)
        }
        Identity::NotAsked => match state.limiter.unknown(origin.address) {
            Ok(standing) | Err(standing) => {
                passed.standing = Some(standing);
                Err(rate_limited(standing, "unknown credentials"))
            }
        },
    }
}

pub(super) fn rate_limited(standing: Standing, what: &str) -> ApiError {
    let detail = format!("more than {} {what} a minute", standing.limit);
    ApiError::new(ErrorKind::Busy, "rate_limited", detail).retry_after(standing.retry_after.max(1))
}

/// A request that was not in proper form, as an answer.
fn flawed(flaw: Flaw) -> ApiError {
    ApiError::with_status(flaw.status, flaw.code, flaw.detail).and_close()
}

/// Refuses heads of HTTP/2 that two parties could read differently, or that are too large. Those of HTTP/1 were
/// looked at before they were parsed.
fn check_head(request: &ServiceRequest) -> Result<(), ApiError> {
    if request.version() < Version::HTTP_2 {
        return Ok(());
    }
    let target = request.uri();
    if target.path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET) {
        let detail = format!("the request target is longer than {MAX_TARGET} bytes");
        return Err(ApiError::with_status(StatusCode::URI_TOO_LONG, "target_too_long", detail));
    }
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > MAX_HEAD {
        let detail = "the headers are larger than 16 KiB";
        return Err(ApiError::with_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", detail));
    }
    if let (Some(named), Some(host)) = (target.authority(), request.headers().get(header::HOST))
        && named.as_str().as_bytes() != host.as_bytes()
    {
        return Err(ApiError::new(ErrorKind::Malformed, "bad_host", "a request names exactly one host"));
    }
    Ok(())
}

fn has_credential(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) || headers.contains_key("x-api-key")
}

/// A browser sends a cookie along with what any page asks of it; what changes something must show that our page asked.
fn check_forgery(
    state: &AppState,
    request: &ServiceRequest,
    principal: Option<&Principal>,
    tls: bool,
    class: Class,
) -> Result<(), ApiError> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let headers = request.headers();
    let host = request.uri().authority().map(|authority| authority.as_str()).or_else(|| headers.get(header::HOST)?.to_str().ok());
    let own = origins::is_own_of(headers, host, &state.settings, tls);
    let foreign = || ApiError::new(ErrorKind::Forbidden, "foreign_origin", "a browser may send this only from this service's own page");
    if class == Class::Login && headers.contains_key(header::ORIGIN) && !own {
        return Err(foreign());
    }
    let Some(Principal { via: Via::Cookie(session), .. }) = principal else { return Ok(()) };
    if class == Class::Login {
        // whoever logs in proves who they are anew
        return Ok(());
    }
    if !own {
        return Err(foreign());
    }
    let expected = state.auth.secrets().csrf_token(session);
    let given = headers.get(CSRF_HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
    if bool::from(given.ct_eq(expected.as_bytes())) {
        Ok(())
    } else {
        let detail = "send the csrf_token of your session in the header X-CSRF-Token";
        Err(ApiError::new(ErrorKind::Forbidden, "csrf", detail))
    }
}

/// Gives errors that a handler returned their final form.
fn finish(state: &AppState, id: &RequestId, answer: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let Some(error) = answer.response().error() else { return answer };
    let answered = match error.as_error::<ApiError>() {
        Some(error) => {
            log_cause(state, id, answer.request().path(), error);
            error.render(&id.0)
        }
        None => problem_of(state, id, answer.request().path(), error).render(&id.0),
    };
    let (request, _) = answer.into_parts();
    ServiceResponse::new(request, answered)
}

/// What somebody else's error is in our words.
fn problem_of(state: &AppState, id: &RequestId, path: &str, error: &Error) -> ApiError {
    let status = error.as_response_error().status_code();
    let problem = if status.is_server_error() {
        ApiError::internal(error)
    } else {
        ApiError::with_status(status, "malformed", "the request is not understood")
    };
    log_cause(state, id, path, &problem);
    problem
}

/// An answer to a request that is gone.
#[derive(Debug)]
struct Broken {
    error: ApiError,
    id: RequestId,
    standing: Option<Standing>,
    tls: bool,
    docs: bool,
    unread: Option<Unread>,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl ResponseError for Broken {
    fn status_code(&self) -> StatusCode {
        self.error.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        let mut answer = self.error.render(&self.id.0);
        decorate(answer.headers_mut(), self.standing, &self.id, self.tls, self.docs);
        match self.unread.clone() {
            Some(unread) => unread.hand_to(answer),
            None => answer,
        }
    }
}

fn log_cause(state: &AppState, id: &RequestId, path: &str, error: &ApiError) {
    let Some(cause) = error.cause() else { return };
    let path = ping::shown(path);
    if error.status_code() != StatusCode::SERVICE_UNAVAILABLE {
        slog::error!(state.log, "a request failed"; "request.id" => &*id.0, "path" => path, "code" => error.code(), "cause" => cause);
    } else if let Some(count) = state.refusals.count(error.code(), state.clock.elapsed()) {
        // one of many alike stands for all of them
        slog::error!(state.log, "requests are refused"; "count" => count, "request.id" => &*id.0, "path" => path, "code" => error.code(), "cause" => cause);
    }
}

fn decorate(headers: &mut HeaderMap, standing: Option<Standing>, id: &RequestId, tls: bool, docs: bool) {
    const FIXED: [(&str, &str); 5] = [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-frame-options", "DENY"),
    ];
    let mut fixed = |name, value| headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    fixed("content-security-policy", if docs { CSP_DOCS } else { CSP });
    for (name, value) in FIXED {
        fixed(name, value);
    }
    if tls {
        fixed("strict-transport-security", "max-age=31536000");
    }
    // only the files of the page say otherwise: everybody gets the same ones
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Ok(id) = HeaderValue::from_str(&id.0) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    if let Some(standing) = standing {
        let mut number = |name, value: HeaderValue| headers.insert(HeaderName::from_static(name), value);
        number("x-ratelimit-limit", standing.limit.into());
        number("x-ratelimit-remaining", standing.remaining.into());
        number("x-ratelimit-reset", standing.reset.into());
    }
}

/// Has refusals written to the audit log; many alike become one entry.
fn refused(state: &web::Data<AppState>, answer: &ServiceResponse<BoxBody>, passed: &Passed) {
    let what = match answer.status() {
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::UNAUTHORIZED if passed.presented => "bad_credential",
        _ => return,
    };
    let address = passed.origin.map_or_else(String::new, |origin| origin.address.to_string());
    let actor = passed.principal.as_ref().map_or(Actor::Anonymous { via: address }, |principal| principal.actor());
    let route = answer.request().match_pattern().unwrap_or_default();
    let what = format!("{what} {} {route}", method_name(answer.request().method()));
    let ledger = state.ledger.clone();
    actix_web::rt::spawn(async move {
        // a refusal that cannot be written down was still a refusal; the ledger counts it
        drop(ledger.denied(actor, what).await);
    });
}

/// The method, from a closed set.
pub(super) fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
