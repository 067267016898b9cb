//! Who did what: the audit log, and what was set aside.

use actix_web::{HttpResponse, web};
use opspilot_kernel::{ids::DeadLetterId, time::Timestamp};
use opspilot_ledger::{AuditFilter, AuditRecord, DeadLetter, Priority};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    body::{OptionalBody, Query},
    error::{ApiResult, ProblemBody},
    guard::{Guard, Operator, Viewer},
    lists::{Limit, Page, Slice, part},
    modules::Nothing,
    state::{AppState, Retried},
};

/// Which entries are wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// A code such as `USR01I`, or the beginning of one.
    action: Option<String>,
    /// `user:ada` or only `ada`, `module:detector.regex`, `system` or `anonymous`.
    actor: Option<String>,
    /// The id of what it was done to, or `kind:id`.
    target: Option<String>,
    /// Not before.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Before.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// How many at most: 1 to 500.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 500, default = 50)]
    limit: Limit,
    /// Where the page before ended.
    cursor: Option<String>,
}

/// An entry as the API gives it: what happened in plain fields, and the leaf as it is hashed.
fn shown(record: AuditRecord) -> Value {
    let text = |pointer: &str| record.leaf.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let labelled = |kind: String, id: String| if id.is_empty() { kind } else { format!("{kind}:{id}") };
    json!({
        "seq": record.seq,
        "at": text("/ts"),
        "action": text("/code"),
        "actor": labelled(text("/actor/t"), text("/actor/id")),
        "via": text("/actor/via"),
        "target": labelled(text("/obj/t"), text("/obj/id")),
        "outcome": text("/outcome"),
        "details": record.body,
        "leaf": record.leaf,
        "leaf_hash": record.leaf_hash,
    })
}

/// The audit log, newest first. A page may be short and still have a `next_cursor`.
#[utoipa::path(get, path = "/api/audit", tag = "audit", params(Wanted), responses((status = 200, description = "Entries", body = Page<Value>)))]
pub async fn list(_caller: Guard<Viewer>, query: Query<Wanted>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let Wanted { action, actor, target, since, until, limit, cursor } = query.0;
    let filter = AuditFilter { action, actor, target, since, until };
    let listed = state.ledger.read(move |reader| reader.audit(&filter, &part(limit, cursor))).await?;
    Ok(HttpResponse::Ok().json(Page::of(listed, shown)))
}

fn letter(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id, "module": letter.module, "log": letter.log, "first_seq": letter.first_seq, "last_seq": letter.last_seq,
        "error": letter.error, "attempts": letter.attempts, "at": letter.at, "requeued_at": letter.requeued_at,
        "payload": String::from_utf8_lossy(letter.payload.get(..4096).unwrap_or(&letter.payload)),
    })
}

/// What could not be processed and was set aside, newest first.
#[utoipa::path(get, path = "/api/dead-letters", tag = "operations", params(Slice),
    responses((status = 200, description = "Dead letters", body = Page<Value>)))]
pub async fn dead_letters(_caller: Guard<Viewer>, query: Query<Slice>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let part = query.0.part();
    let listed = state.ledger.read(move |reader| reader.dead_letters(&part)).await?;
    Ok(HttpResponse::Ok().json(Page::of(listed, |dead| letter(&dead))))
}

/// Has a dead letter tried again.
#[utoipa::path(post, path = "/api/dead-letters/{id}/requeue", tag = "operations", params(("id" = String, Path, description = "Its id")), responses(
    (status = 202, description = "Tried again; `outcome` says `processed`, `waiting` or `failed`", body = Value),
    (status = 404, description = "No such dead letter", body = ProblemBody),
))]
pub async fn requeue(
    caller: Guard<Operator>,
    id: web::Path<String>,
    _body: OptionalBody<Nothing>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let (id, actor) = (DeadLetterId::given(id.into_inner()), caller.actor());
    let requeued = state.ledger.write(Priority::Control, move |tx| tx.requeue_dead_letter(&id, &actor)).await?;
    let mut body = letter(&requeued);
    let (outcome, detail) = match state.control.requeue(requeued.module, requeued.id).await {
        Retried::Processed => ("processed", String::new()),
        Retried::Waiting => ("waiting", "its module is not available just now and tries it as soon as it is".to_owned()),
        Retried::Failed(why) => ("failed", why),
    };
    if let Value::Object(fields) = &mut body {
        fields.insert("outcome".to_owned(), outcome.into());
        fields.insert("detail".to_owned(), detail.into());
    }
    Ok(HttpResponse::Accepted().json(body))
}
