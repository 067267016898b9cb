//! One entry, looked at for itself: what can be checked of it without its neighbours, and what it says that the rest of
//! the log must agree with. Pure, so that many can be looked at side by side.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::tree::{Hash, leaf_hash};
use crate::tables::audit::commitment;

/// The leaf, as it was hashed. Members that it does not have, or has twice, are no leaf of version 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Leaf<'a> {
    v: u64,
    seq: u64,
    #[serde(borrow)]
    ts: Cow<'a, str>,
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow)]
    obj: Object<'a>,
    #[serde(borrow)]
    commit: Cow<'a, str>,
    #[serde(borrow)]
    prev: Cow<'a, str>,
    #[serde(rename = "node", borrow)]
    _node: Cow<'a, str>,
    #[serde(rename = "boot", borrow)]
    _boot: Cow<'a, str>,
    #[serde(rename = "actor", borrow)]
    _actor: Who<'a>,
    #[serde(rename = "outcome", borrow)]
    _outcome: Cow<'a, str>,
    #[serde(rename = "req")]
    _request: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object<'a> {
    #[serde(borrow)]
    t: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Who<'a> {
    #[serde(rename = "t", borrow)]
    _t: Cow<'a, str>,
    #[serde(rename = "id", borrow)]
    _id: Cow<'a, str>,
    #[serde(rename = "via", borrow)]
    _via: Cow<'a, str>,
}

/// An entry as it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) seq: u64,
    pub(crate) leaf: &'a [u8],
    /// The hash that is stored beside the leaf.
    pub(crate) hash: &'a [u8],
    /// Salt and body; nothing if they were deleted.
    pub(crate) payload: Option<(&'a [u8], &'a [u8])>,
}

/// What an entry says that the rest of the log must agree with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// Nothing of the kind.
    Nothing,
    /// A checkpoint covers everything up to here.
    Checkpoint,
    /// A key signs checkpoints from now on: its public part.
    KeyInUse([u8; 32]),
    /// Another key has taken the place of this one, which signs nothing from here on.
    KeyRetired([u8; 32]),
    /// What this key signs from here on does not count.
    KeyRevoked([u8; 32]),
    /// A restore went back behind the published note with this digest.
    WentBackBehind(String),
    /// The payloads of these entries were deleted.
    Deleted(u64, u64),
    /// This approval of this plan was given.
    Approved { approval: String, plan: String },
    /// This execution of this plan started, by this approval and this token.
    Started { execution: String, approval: String, token: String, plan: String },
    /// This execution ended.
    Ended(String),
    /// Somebody accepted a clock that had been set back.
    ClockAccepted,
}

/// An entry that was looked at.
#[derive(Debug, Clone)]
pub(crate) struct Looked {
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
    pub(crate) prev: Hash,
    /// As written; all are of the same form, so that the order of the texts is that of the times.
    pub(crate) ts: String,
    /// There is no payload.
    pub(crate) bare: bool,
    pub(crate) said: Said,
    /// What is wrong with it.
    pub(crate) wrong: Option<&'static str>,
}

impl Looked {
    /// Looks at an entry.
    pub(crate) fn at(entry: &Stored<'_>) -> Looked {
        let hash = leaf_hash(entry.leaf);
        let mut looked = Looked {
            seq: entry.seq,
            hash,
            prev: [0; 32],
            ts: String::new(),
            bare: entry.payload.is_none(),
            said: Said::Nothing,
            wrong: None,
        };
        if entry.hash != hash {
            looked.wrong = Some("the leaf is not what was written");
            return looked;
        }
        if let Err(wrong) = looked.read(entry) {
            looked.wrong = Some(wrong);
        }
        looked
    }

    fn read(&mut self, entry: &Stored<'_>) -> Result<(), &'static str> {
        let leaf: Leaf<'_> = serde_json::from_slice(entry.leaf).map_err(|_| "the leaf is no leaf")?;
        if leaf.v != 1 {
            return Err("the leaf is of an unknown version");
        }
        if leaf.seq != entry.seq {
            return Err("the leaf bears another number");
        }
        self.prev = hash_of(&leaf.prev).ok_or("the leaf does not name the one before it")?;
        self.ts = leaf.ts.into_owned();
        if let Some((salt, body)) = entry.payload
            && hash_of(&leaf.commit) != Some(commitment(salt, body))
        {
            return Err("the payload is not what was written");
        }
        self.said = said(&leaf.code, leaf.obj, entry.payload.map(|(_, body)| body))?;
        Ok(())
    }
}

/// 32 bytes in hex as it is written here: in lower case.
pub(crate) fn hash_of(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    hex::decode_to_slice(text, &mut hash).ok()?;
    Some(hash)
}

fn said(code: &str, object: Object<'_>, body: Option<&[u8]>) -> Result<Said, &'static str> {
    let details = || {
        let body = body.ok_or("its payload is needed and was deleted")?;
        serde_json::from_slice::<Value>(body).map_err(|_| "the payload is not JSON")
    };
    let text = |details: &Value, name: &str| details.get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(match code {
        "CHK01I" => Said::Checkpoint,
        "SGN01I" | "SGN02I" | "SGN03W" => {
            let details = details()?;
            if text(&details, "purpose").as_deref() != Some("audit") {
                return Ok(Said::Nothing);
            }
            let public = text(&details, "public").and_then(|public| hash_of(&public)).ok_or("it names no key")?;
            match code {
                "SGN01I" => Said::KeyInUse(public),
                "SGN02I" => Said::KeyRetired(public),
                _ => Said::KeyRevoked(public),
            }
        }
        // without its payload it goes back behind nothing
        "RES01I" if body.is_some() => text(&details()?, "behind").map_or(Said::Nothing, Said::WentBackBehind),
        "RED01I" | "RET01I" if object.t == "audit" => {
            let (from, to) = object.id.split_once('-').unwrap_or((&object.id, &object.id));
            let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
            let (Some(from), Some(to)) = (number(from), number(to)) else { return Err("it names no entries") };
            Said::Deleted(from, to)
        }
        // the plan in words, if it is still there, is what its digest says
        "PRO01I" if body.is_some() => {
            let details = details()?;
            let of_words = text(&details, "plan_text").map(|words| format!("sha256:{}", hex::encode(Sha256::digest(words))));
            if of_words.is_some() && of_words != text(&details, "plan") {
                return Err("the plan is not that of its digest");
            }
            Said::Nothing
        }
        "APR01I" => {
            let plan = text(&details()?, "plan").ok_or("an approval without a plan")?;
            Said::Approved { approval: object.id.into_owned(), plan }
        }
        "EXE01I" => {
            let details = details()?;
            let approval = text(&details, "approval").ok_or("an execution without an approval")?;
            let token = text(&details, "jti_sha256").ok_or("an execution without a token")?;
            let plan = text(&details, "plan").ok_or("an execution without a plan")?;
            Said::Started { execution: object.id.into_owned(), approval, token, plan }
        }
        "CLK01I" => Said::ClockAccepted,
        "EXE02I" | "EXE02E" => Said::Ended(object.id.into_owned()),
        _ => Said::Nothing,
    })
}
