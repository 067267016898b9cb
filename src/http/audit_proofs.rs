//! The audit log for those who do not trust this service: its newest checkpoint, proofs, and all of it.

use actix_web::{HttpResponse, web};
use futures_util::stream;
use opspilot_kernel::error::ErrorKind;
use opspilot_ledger::audit::{Proof, note::PublicKey, public_path};
use serde::{Deserialize, Deserializer, de};
use serde_json::json;

use super::{
    body::Query,
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Guard, Viewer},
    state::AppState,
};

/// A number in a query.
#[derive(Debug, Clone, Copy)]
pub struct Number(u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(Number).map_err(|_| de::Error::custom("a number of entries is a whole number"))
    }
}

/// Which entry, and among how many.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Inclusion {
    /// The number of the entry, from 1.
    #[param(value_type = u64, minimum = 1)]
    seq: Number,
    /// The size of the checkpoint that is to cover it; by default the newest signed one.
    #[param(value_type = Option<u64>)]
    size: Option<Number>,
}

/// Two sizes of the log.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Consistency {
    /// The smaller one.
    #[param(value_type = u64)]
    from: Number,
    /// The larger one; by default that of the newest signed checkpoint.
    #[param(value_type = Option<u64>)]
    to: Option<Number>,
}

fn none_yet() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "no_checkpoint", "no checkpoint is signed yet")
}

async fn newest(state: &AppState) -> ApiResult<(u64, String)> {
    let newest = state.ledger.read(|reader| reader.audit_checkpoint()).await?;
    newest.and_then(|checkpoint| Some((checkpoint.size, checkpoint.note?))).ok_or_else(none_yet)
}

fn hexed(path: &[[u8; 32]]) -> Vec<String> {
    path.iter().map(hex::encode).collect()
}

/// The newest signed checkpoint, as a C2SP signed note. Keep it somewhere else: no later change of the log can be brought
/// into line with it.
#[utoipa::path(get, path = "/api/audit/checkpoint", tag = "audit", responses(
    (status = 200, description = "The note", body = String, content_type = "text/plain"),
    (status = 404, description = "Nothing is signed yet", body = ProblemBody),
))]
pub async fn checkpoint(state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let (_, note) = newest(&state).await?;
    Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(note))
}

/// What shows that an entry is under a checkpoint: the hashes from its leaf up to the root (RFC 6962).
#[utoipa::path(get, path = "/api/audit/proof/inclusion", tag = "audit", params(Inclusion), responses(
    (status = 200, description = "`path`, `leaf_hash` and `root` in hex", body = serde_json::Value),
    (status = 404, description = "Nothing is signed yet, and no size was named", body = ProblemBody),
    (status = 422, description = "There are not so many entries", body = ProblemBody),
))]
pub async fn inclusion(_caller: Guard<Viewer>, query: Query<Inclusion>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let seq = query.0.seq.0;
    let size = match query.0.size {
        Some(Number(size)) => size,
        None => newest(&state).await?.0,
    };
    let Proof { path, root, start } = state.ledger.read(move |reader| reader.audit_inclusion(seq, size)).await?;
    let body = json!({ "seq": seq, "size": size, "leaf_hash": hex::encode(start), "path": hexed(&path), "root": hex::encode(root) });
    Ok(HttpResponse::Ok().json(body))
}

/// What shows that the log of one size begins with the log of a smaller one (RFC 6962).
#[utoipa::path(get, path = "/api/audit/proof/consistency", tag = "audit", params(Consistency), responses(
    (status = 200, description = "`path`, `from_root` and `to_root` in hex", body = serde_json::Value),
    (status = 404, description = "Nothing is signed yet, and no size was named", body = ProblemBody),
    (status = 422, description = "There are not so many entries", body = ProblemBody),
))]
pub async fn consistency(_caller: Guard<Viewer>, query: Query<Consistency>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let from = query.0.from.0;
    let to = match query.0.to {
        Some(Number(to)) => to,
        None => newest(&state).await?.0,
    };
    let Proof { path, root, start } = state.ledger.read(move |reader| reader.audit_consistency(from, to)).await?;
    let body = json!({ "from": from, "to": to, "path": hexed(&path), "from_root": hex::encode(start), "to_root": hex::encode(root) });
    Ok(HttpResponse::Ok().json(body))
}

/// The whole log as NDJSON, up to the entry that is the last one now: what `opspilot audit verify --export` and the second
/// verifier check.
#[utoipa::path(get, path = "/api/audit/export", tag = "audit", responses(
    (status = 200, description = "A line for the log, one for each entry, one for each checkpoint", body = String, content_type = "application/x-ndjson"),
))]
pub async fn export(_caller: Guard<Viewer>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let key = std::fs::read_to_string(public_path(state.ledger.dir())).ok().and_then(|line| PublicKey::parse(line.trim_end()).ok());
    let (first, cursor) = state.ledger.read(move |reader| reader.audit_export_begin(key.as_ref())).await?;
    let ledger = state.ledger.clone();
    // each part is a read of its own: a slow client holds nothing up
    let parts = stream::try_unfold((Some(first), cursor), move |(first, cursor)| {
        let ledger = ledger.clone();
        async move {
            if let Some(first) = first {
                return Ok(Some((web::Bytes::from(first), (None, cursor))));
            }
            let part = ledger.read(move |reader| reader.audit_export_part(&cursor)).await.map_err(ApiError::from)?;
            Ok::<_, actix_web::Error>(part.map(|(bytes, next)| (web::Bytes::from(bytes), (None, next))))
        }
    });
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").streaming(parts))
}
