//! Accounts: made and changed by admins.

use actix_web::{HttpResponse, http::StatusCode, web};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use opspilot_kernel::{error::ErrorKind, principal::Role};
use opspilot_ledger::{NewUser, Priority, UserChange, UserRecord};
use serde::{Deserialize, Serialize};

use super::{
    auth::passwords,
    body::{Body, Query},
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Admin, Guard},
    idempotency::{IdempotencyKey, answered},
    lists::{Page, Slice},
    state::AppState,
};

/// An account, as the API gives it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct User {
    username: String,
    #[schema(value_type = String)]
    role: Role,
    groups: Vec<String>,
    disabled: bool,
    created_at: String,
    changed_at: String,
}

impl From<UserRecord> for User {
    fn from(user: UserRecord) -> User {
        User {
            username: user.name,
            role: user.role,
            groups: user.groups,
            disabled: user.disabled,
            created_at: user.created_at.to_string(),
            changed_at: user.changed_at.to_string(),
        }
    }
}

/// What a cursor says; what it is written as is nobody else's business.
const CURSOR: &str = "user:";

fn cursor_behind(name: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{CURSOR}{name}"))
}

fn behind(cursor: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    text.strip_prefix(CURSOR).map(str::to_owned)
}

/// Every account, by name.
#[utoipa::path(get, path = "/api/users", tag = "accounts", params(Slice), responses((status = 200, description = "Accounts", body = Page<User>)))]
pub async fn list(_caller: Guard<Admin>, query: Query<Slice>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let Slice { limit, cursor } = query.0;
    let after = match cursor {
        None => String::new(),
        Some(cursor) => behind(&cursor).ok_or_else(ApiError::bad_cursor)?,
    };
    let rows = state.ledger.read(move |reader| reader.users_after(&after, limit.and_one())).await?;
    Ok(HttpResponse::Ok().json(Page::cut(rows, limit, |user| cursor_behind(&user.name), User::from)))
}

/// An account to be made.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// 1 to 64 letters, digits, `.`, `_`, `-` or `@`.
    username: String,
    /// `integrator`, `viewer`, `operator` or `admin`.
    #[schema(value_type = String)]
    role: Role,
    /// 12 to 1,024 characters.
    #[schema(format = Password)]
    password: String,
    /// Groups, as the quorum clauses of the policy name them.
    #[serde(default)]
    groups: Vec<String>,
}

fn check_password(password: &str) -> ApiResult<()> {
    passwords::acceptable(password).map_err(|why| ApiError::invalid("/password", "bad_password", why))
}

/// Makes an account.
#[utoipa::path(post, path = "/api/users", tag = "accounts", request_body = Create, responses(
    (status = 201, description = "Made", body = User),
    (status = 409, description = "There is one of this name", body = ProblemBody),
    (status = 422, description = "Not acceptable", body = ProblemBody),
))]
pub async fn create(caller: Guard<Admin>, key: IdempotencyKey, body: Body<Create>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let Create { username, role, password, groups } = body.value;
    check_password(&password)?;
    let password_hash = state.auth.passwords().hash(password).await?;
    let actor = caller.actor();
    let (inner, bytes) = (state.clone(), body.bytes);
    let change = async move {
        key.run(&inner, &bytes, move |tx| {
            let user = tx.user_create(&actor, NewUser { name: username, role, groups, password_hash })?;
            answered(StatusCode::CREATED, &User::from(user))
        })
        .await
    };
    Ok(state.auth.settle(change).await?.respond())
}

/// What to change about an account.
#[derive(Deserialize, Default, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// What it may do.
    #[schema(value_type = Option<String>)]
    role: Option<Role>,
    /// Its groups.
    groups: Option<Vec<String>>,
    /// Its new password; ends its sessions.
    #[schema(format = Password)]
    password: Option<String>,
    /// Whether it may not be used; ends its sessions.
    disabled: Option<bool>,
}

/// Changes an account. Disabling it, or a new password, ends its sessions at once.
#[utoipa::path(patch, path = "/api/users/{name}", tag = "accounts", params(("name" = String, Path, description = "The account's name")),
    request_body = Change, responses(
    (status = 200, description = "As it now is", body = User),
    (status = 404, description = "No such account", body = ProblemBody),
    (status = 409, description = "It is the last admin", body = ProblemBody),
))]
pub async fn change(
    caller: Guard<Admin>,
    name: web::Path<String>,
    body: Body<Change>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let Change { role, groups, password, disabled } = body.value;
    if role.is_none() && groups.is_none() && password.is_none() && disabled.is_none() {
        return Err(ApiError::new(ErrorKind::Invalid, "invalid", "name something to change: role, groups, password or disabled"));
    }
    let password_hash = match password {
        None => None,
        Some(password) => {
            check_password(&password)?;
            Some(state.auth.passwords().hash(password).await?)
        }
    };
    let (ledger, actor, name) = (state.ledger.clone(), caller.actor(), name.into_inner());
    let change = UserChange { role, groups, password_hash, disabled };
    let user =
        state.auth.settle(async move { ledger.write(Priority::Control, move |tx| tx.user_change(&actor, &name, change)).await }).await?;
    Ok(HttpResponse::Ok().json(User::from(user)))
}
