//! Logging in and out, and tickets for the live feed.

use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite, time::Duration as CookieAge},
    http::header,
    web,
};
use opspilot_kernel::{
    error::ErrorKind,
    ids::SessionId,
    principal::{Actor, Role},
    time::Timestamp,
};
use opspilot_ledger::Priority;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{COOKIE, COOKIE_TLS, passwords};
use crate::http::{
    body::{Body, OptionalBody},
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Anybody, Guard, Via, Viewer},
    limits,
    modules::Nothing,
    state::AppState,
};

/// What a log-in says.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The account's name.
    username: String,
    /// Its password.
    #[schema(format = Password)]
    password: String,
}

/// What a log-in answers.
#[derive(Serialize, utoipa::ToSchema)]
pub struct LoggedIn {
    /// To be sent as `Authorization: Bearer …`.
    token: String,
    /// When the session ends in any case.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// What the account may do.
    #[schema(value_type = String)]
    role: Role,
    /// To be sent as `X-CSRF-Token` with unsafe methods by who uses the cookie.
    csrf_token: String,
}

/// Opens a session. The token comes in the body, and for browsers in a cookie that no script can read.
#[utoipa::path(post, path = "/api/auth/login", tag = "accounts", request_body = Login, responses(
    (status = 200, description = "Logged in", body = LoggedIn),
    (status = 401, description = "Wrong name or password; which of the two is not told", body = ProblemBody),
    (status = 429, description = "Too many tries; `Retry-After` says when the next one counts", body = ProblemBody),
))]
pub async fn login(request: HttpRequest, body: Body<Login>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let Login { username, password } = body.value;
    let origin = limits::origin_in(&request);
    if username.len() > 256 || password.chars().count() > passwords::MAX_CHARS {
        return Err(ApiError::invalid("", "too_long", "no name or password is this long"));
    }
    let auth = &state.auth;
    let now = state.clock.elapsed();
    let wait = auth.throttle().wait(&username, origin.address, now);
    if !wait.is_zero() {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let detail = "too many wrong passwords; wait before the next try";
        return Err(ApiError::new(ErrorKind::Busy, "slow_down", detail).retry_after(seconds));
    }
    let name = username.clone();
    let found = state.ledger.read(move |reader| reader.credentials(&name)).await?;
    let usable = found.filter(|found| !found.disabled);
    let matches = auth.passwords().verify(usable.as_ref().map(|found| found.password_hash.clone()), password).await?;
    let Some(account) = usable.filter(|_| matches) else {
        auth.throttle().wrong(&username, origin.address, state.clock.elapsed());
        let actor = Actor::Anonymous { via: origin.address.to_string() };
        // the name is not written down: people type passwords there
        let denied = state.ledger.write(Priority::Bulk, move |tx| tx.denied(&actor, "login"));
        actix_web::rt::spawn(async move { drop(denied.await) });
        return Err(ApiError::new(ErrorKind::Unauthenticated, "bad_credentials", "wrong name or password"));
    };
    auth.throttle().right(&username, origin.address, state.clock.elapsed());

    let session = SessionId::random();
    let expires_at = auth.session_end();
    let actor = Actor::User { id: account.name.clone(), via: "session".to_owned() };
    let (user, id) = (account.name.clone(), session.clone());
    let role = state
        .ledger
        .write(Priority::Control, move |tx| {
            tx.session_open(&actor, &user, &id, expires_at)?;
            tx.user_role(&user)
        })
        .await?;
    let sign = auth.secrets().sign(&account.name, &session, state.clock.now(), expires_at);
    let token = sign.ok_or_else(|| ApiError::internal("the session key does not sign"))?;
    let age = expires_at.since(state.clock.now());
    let cookie = cookie(token.clone(), origin.tls, CookieAge::seconds(i64::try_from(age.as_secs()).unwrap_or(0)));
    let csrf_token = auth.secrets().csrf_token(&session);
    Ok(HttpResponse::Ok().cookie(cookie).json(LoggedIn { token, expires_at, role, csrf_token }))
}

fn cookie(token: String, tls: bool, age: CookieAge) -> Cookie<'static> {
    let name = if tls { COOKIE_TLS } else { COOKIE };
    Cookie::build(name, token).path("/").http_only(true).same_site(SameSite::Strict).secure(tls).max_age(age).finish()
}

/// Ends the caller's session, at once and for every holder of its token.
#[utoipa::path(post, path = "/api/auth/logout", tag = "accounts", responses(
    (status = 204, description = "Logged out"),
    (status = 409, description = "An API key has no session to end", body = ProblemBody),
))]
pub async fn logout(
    caller: Guard<Anybody>,
    request: HttpRequest,
    _body: OptionalBody<Nothing>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let Some(session) = caller.session().cloned() else {
        return Err(ApiError::new(ErrorKind::Conflict, "no_session", "an API key has no session to end; revoke the key instead"));
    };
    let (ledger, actor) = (state.ledger.clone(), caller.actor());
    state.auth.settle(async move { ledger.write(Priority::Control, move |tx| tx.session_close(&actor, &session)).await }).await?;
    let gone = cookie(String::new(), limits::origin_in(&request).tls, CookieAge::ZERO);
    Ok(HttpResponse::NoContent().cookie(gone).finish())
}

/// Who the caller is.
#[utoipa::path(get, path = "/api/auth/me", tag = "accounts", responses((status = 200, description = "The caller", body = serde_json::Value)))]
pub async fn me(caller: Guard<Viewer>, state: web::Data<AppState>) -> HttpResponse {
    let (via, csrf) = match &caller.via {
        Via::Session(_) => ("session", None),
        Via::Cookie(id) => ("cookie", Some(state.auth.secrets().csrf_token(id))),
        Via::Key(_) => ("key", None),
    };
    let mut me = json!({ "username": caller.user, "role": caller.role, "groups": caller.groups, "via": via });
    if let (Some(csrf), Some(me)) = (csrf, me.as_object_mut()) {
        me.insert("csrf_token".to_owned(), csrf.into());
    }
    HttpResponse::Ok().json(me)
}

/// A ticket to open the live feed with: good for thirty seconds, once.
#[utoipa::path(post, path = "/api/auth/ws-ticket", tag = "accounts", responses(
    (status = 200, description = "The ticket, to be given as `?ticket=`", body = serde_json::Value),
    (status = 429, description = "Too many tickets are out", body = ProblemBody),
))]
pub async fn ws_ticket(
    caller: Guard<Viewer>,
    request: HttpRequest,
    _body: OptionalBody<Nothing>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let origin = request.headers().get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    match state.tickets.issue(caller.principal(), origin) {
        Some(ticket) => Ok(HttpResponse::Ok().json(json!({ "ticket": ticket }))),
        None => Err(ApiError::new(ErrorKind::Busy, "too_many_tickets", "use the tickets you have, or wait until they end").retry_after(30)),
    }
}
