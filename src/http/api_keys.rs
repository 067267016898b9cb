//! API keys: operators make and see their own, admins all.

use std::time::Duration;

use actix_web::{HttpResponse, http::StatusCode, web};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use opspilot_kernel::{error::ErrorKind, ids::ApiKeyId, principal::Role, time::Timestamp};
use opspilot_ledger::{KeyRecord, NewKey, Priority, may_have_key};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    auth::apikey,
    body::{Body, Query},
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Guard, Operator},
    idempotency::IdempotencyKey,
    lists::{Page, Slice},
    state::AppState,
};

/// The longest life that can be asked for.
const MAX_DAYS: u32 = 3650;

/// A key, without the key.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Key {
    id: String,
    name: String,
    owner: String,
    #[schema(value_type = String)]
    role: Role,
    created_at: String,
    expires_at: Option<String>,
    last_used_at: Option<String>,
}

impl From<KeyRecord> for Key {
    fn from(key: KeyRecord) -> Key {
        Key {
            id: key.id.to_string(),
            name: key.name,
            owner: key.owner,
            role: key.role,
            created_at: key.created_at.to_string(),
            expires_at: key.expires_at.map(|at| at.to_string()),
            last_used_at: key.used_at.map(|at| at.to_string()),
        }
    }
}

fn behind(cursor: &str) -> Option<(Timestamp, ApiKeyId)> {
    let (millis, id) = cursor.split_once('.')?;
    Some((Timestamp::from_millis(millis.parse().ok()?), ApiKeyId::given(id)))
}

/// Keys, oldest first: an operator's own, for an admin all.
#[utoipa::path(get, path = "/api/api-keys", tag = "accounts", params(Slice), responses((status = 200, description = "Keys", body = Page<Key>)))]
pub async fn list(caller: Guard<Operator>, query: Query<Slice>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let Slice { limit, cursor } = query.0;
    let after = match cursor {
        None => None,
        Some(text) => Some(behind(&text).ok_or_else(ApiError::bad_cursor)?),
    };
    let owner = (caller.role != Role::Admin).then(|| caller.user.clone());
    let rows = state.ledger.read(move |reader| reader.keys(owner.as_deref(), after, limit.and_one())).await?;
    let cursor = |key: &KeyRecord| format!("{}.{}", key.created_at.millis(), key.id);
    Ok(HttpResponse::Ok().json(Page::cut(rows, limit, cursor, Key::from)))
}

/// A key to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// What its owner calls it: 1 to 128 characters.
    name: String,
    /// What it may do: never more than its owner; operators may make `integrator` keys.
    #[schema(value_type = String)]
    role: Role,
    /// After how many days it ends: 1 to 3,650; without it, never.
    #[schema(minimum = 1, maximum = 3650)]
    expires_in_days: Option<u32>,
}

/// A key, the only time it is shown.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Created {
    id: String,
    /// `opk_` and 28 characters. It is not stored and cannot be shown again.
    key: String,
    name: String,
    role: String,
    expires_at: Option<String>,
}

/// Makes a key of the caller.
///
/// The key follows from a random number and the service's own secret. A repeat with the same
/// `Idempotency-Key` needs the first answer again, and that number, useless without the secret, is what
/// is stored for it.
#[utoipa::path(post, path = "/api/api-keys", tag = "accounts", request_body = Create, responses(
    (status = 201, description = "Made", body = Created),
    (status = 403, description = "A key cannot do more than its owner", body = ProblemBody),
    (status = 422, description = "Not acceptable", body = ProblemBody),
))]
pub async fn create(
    caller: Guard<Operator>,
    idempotency: IdempotencyKey,
    body: Body<Create>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let Create { name, role, expires_in_days } = body.value;
    if name.trim().is_empty() || name.chars().count() > 128 || name.chars().any(char::is_control) {
        return Err(ApiError::invalid("/name", "bad_name", "a name has 1 to 128 characters"));
    }
    if expires_in_days.is_some_and(|days| days == 0 || days > MAX_DAYS) {
        return Err(ApiError::invalid("/expires_in_days", "out_of_range", format!("a key lives 1 to {MAX_DAYS} days")));
    }
    if !may_have_key(caller.role, role) {
        return Err(ApiError::new(ErrorKind::Forbidden, "forbidden", "a key cannot do more than its owner"));
    }
    let nonce: [u8; 32] = rand::random();
    let hash = apikey::hash(&key_of(&state, &nonce));
    let expires_at = expires_in_days.map(|days| state.clock.now().after(Duration::from_secs(u64::from(days) * 86_400)));
    let (actor, owner) = (caller.actor(), caller.user.clone());
    let (inner, bytes) = (state.clone(), body.bytes);
    let change = async move {
        idempotency
            .run(&inner, &bytes, move |tx| {
                let key = tx.key_create(&actor, NewKey { id: ApiKeyId::random(), name, owner, role, hash, expires_at })?;
                let expires_at = key.expires_at.map(|at| at.to_string());
                let body = json!({ "id": key.id, "nonce": URL_SAFE_NO_PAD.encode(nonce), "name": key.name, "role": key.role, "expires_at": expires_at });
                Ok((StatusCode::CREATED, body))
            })
            .await
    };
    let mut answer = state.auth.settle(change).await?;
    if let Some(body) = answer.body.as_object_mut() {
        let nonce = body.remove("nonce").and_then(|nonce| URL_SAFE_NO_PAD.decode(nonce.as_str()?).ok()?.try_into().ok());
        let nonce: [u8; 32] = nonce.ok_or_else(|| ApiError::internal("a stored answer without its nonce"))?;
        body.insert("key".to_owned(), key_of(&state, &nonce).into());
    }
    Ok(answer.respond())
}

fn key_of(state: &AppState, nonce: &[u8; 32]) -> String {
    apikey::from_secret(&state.auth.secrets().keyed("api-key", nonce))
}

/// Revokes a key, at once and for good: an operator's own, for an admin any.
#[utoipa::path(delete, path = "/api/api-keys/{id}", tag = "accounts", params(("id" = String, Path, description = "The key's id")), responses(
    (status = 204, description = "Revoked"),
    (status = 404, description = "The caller has no such key", body = ProblemBody),
))]
pub async fn revoke(caller: Guard<Operator>, id: web::Path<String>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let owner = (caller.role != Role::Admin).then(|| caller.user.clone());
    let (ledger, actor, id) = (state.ledger.clone(), caller.actor(), ApiKeyId::given(id.into_inner()));
    state.auth.settle(async move { ledger.write(Priority::Control, move |tx| tx.key_revoke(&actor, &id, owner.as_deref())).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}
