//! Approval tokens: signed claim checks. The row in the ledger decides; without it a token is worth nothing.
//!
//! A token is looked at in a fixed order, each step before the next one's work: length, the three parts in their one
//! spelling, the header with nothing else in it, the name of the key, the key and its purpose, its algorithm, the
//! signature, the claims with nothing else in them, their type and ranges, the time. No step before the ledger does I/O.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, VerifyingKey, pkcs8::EncodePrivateKey as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use opspilot_kernel::{consent::Refusal, ids::ApprovalId, plan::PlanDigest, time::Timestamp};
use opspilot_ledger::{Grant, KeyFile, KeyPurpose, Minted};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// No token of ours comes near this; longer ones are not looked at.
const MAX_TOKEN: usize = 2048;
const TYPE: &str = "opspilot-approval+jwt";
/// The longest a token may live, in seconds.
const LIFETIME: i64 = 900;
/// How far ahead of ours the clock of whoever made it may be, in seconds. Behind, not at all.
const AHEAD: i64 = 2;

/// The only header there is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictHeader {
    alg: String,
    typ: String,
    kid: String,
}

/// What a token says. All of it is required, nothing else may stand there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claims {
    /// This instance.
    pub(crate) iss: String,
    /// Its gate.
    pub(crate) aud: String,
    /// Who agreed last.
    pub(crate) sub: String,
    /// Everybody who agreed.
    pub(crate) apr: Vec<String>,
    /// Who proposed it.
    pub(crate) req: String,
    /// Who may execute it: `*` for everybody who may execute at all.
    pub(crate) exe: String,
    /// The approval.
    pub(crate) act: String,
    /// The revision of the proposal: an edited one is another proposal, so it is 1.
    pub(crate) rev: i64,
    /// SHA-256 over the plan.
    pub(crate) dig: String,
    /// The tier.
    pub(crate) tier: String,
    /// The digest of the policy.
    pub(crate) pol: String,
    /// The epoch.
    pub(crate) epo: String,
    /// The token's name.
    pub(crate) jti: String,
    pub(crate) iat: i64,
    pub(crate) nbf: i64,
    pub(crate) exp: i64,
}

/// Why a token was refused before the ledger was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    Length,
    Form,
    Header,
    Algorithm,
    Kid,
    UnknownKey,
    KeyPurpose,
    Signature,
    Claims,
    Type,
    Issuer,
    Audience,
    Lifetime,
    IssuedAhead,
    NotYet,
    Expired,
    Revision,
    Executor,
}

impl Bad {
    /// Its code in the audit log.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Bad::Length => "TOK10W",
            Bad::Form => "TOK11W",
            Bad::Header => "TOK12W",
            Bad::Algorithm => "TOK13W",
            Bad::Kid => "TOK14W",
            Bad::UnknownKey => "TOK15W",
            Bad::KeyPurpose => "TOK16W",
            Bad::Signature => "TOK17W",
            Bad::Claims => "TOK18W",
            Bad::Type => "TOK19W",
            Bad::Issuer => "TOK20W",
            Bad::Audience => "TOK21W",
            Bad::Lifetime => "TOK22W",
            Bad::IssuedAhead => "TOK23W",
            Bad::NotYet => "TOK24W",
            Bad::Expired => "TOK25W",
            Bad::Revision => "TOK26W",
            Bad::Executor => "TOK27W",
        }
    }

    pub(crate) const fn why(self) -> &'static str {
        match self {
            Bad::Length => "longer than any token",
            Bad::Form => "not three parts of canonical base64url",
            Bad::Header => "a header with something missing or something else in it",
            Bad::Algorithm => "another algorithm than the key's",
            Bad::Kid => "the name of no key",
            Bad::UnknownKey => "a key that is not known or not used any more",
            Bad::KeyPurpose => "a key that is for something else",
            Bad::Signature => "the signature does not fit",
            Bad::Claims => "claims with something missing, mistyped or something else in them",
            Bad::Type => "another type of token",
            Bad::Issuer => "another issuer",
            Bad::Audience => "another audience",
            Bad::Lifetime => "a longer life than tokens have",
            Bad::IssuedAhead => "issued in the future",
            Bad::NotYet => "not valid yet",
            Bad::Expired => "expired",
            Bad::Revision => "another revision",
            Bad::Executor => "for another executor",
        }
    }

    /// What the caller is told: nothing that would help to make a better one.
    pub(crate) const fn refusal(self) -> Refusal {
        match self {
            Bad::Expired => Refusal::TokenExpired,
            _ => Refusal::BadToken,
        }
    }
}

struct Known {
    purpose: KeyPurpose,
    public: VerifyingKey,
}

/// Makes and checks approval tokens.
pub(crate) struct Tokens {
    encoding: EncodingKey,
    kid: String,
    /// Every key of this instance by its name, whatever it is for: a token signed by another purpose's key is told so.
    known: BTreeMap<String, Known>,
    issuer: String,
    audience: String,
}

/// A token that holds as far as it can be told without the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    pub(crate) claims: Claims,
    pub(crate) digest: PlanDigest,
    pub(crate) hash: [u8; 32],
}

/// SHA-256 of a token as it came.
pub(crate) fn hash_of(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

impl Tokens {
    /// Signs with `key`, for the instance of this name; `others` are keys that are for something else.
    pub(crate) fn new(key: &KeyFile, others: &[KeyFile], instance: &str) -> Option<Tokens> {
        let der = key.signing().to_pkcs8_der().ok()?;
        let known = std::iter::once(key).chain(others).filter_map(|key| {
            let public = VerifyingKey::from_bytes(&key.public()).ok()?;
            Some((key.kid(), Known { purpose: key.purpose(), public }))
        });
        Some(Tokens {
            encoding: EncodingKey::from_ed_der(der.as_bytes()),
            kid: key.kid(),
            known: known.collect(),
            issuer: format!("urn:opspilot:{instance}"),
            audience: format!("opspilot-exec/{instance}"),
        })
    }

    /// The name of the key that signs.
    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// Makes the token of a grant.
    pub(crate) fn mint(&self, grant: &Grant) -> Option<Minted> {
        let jti = hex::encode(rand::random::<[u8; 16]>());
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: grant.last.clone(),
            apr: grant.approvers.clone(),
            req: grant.requester.clone(),
            exe: "*".to_owned(),
            act: grant.approval.to_string(),
            rev: 1,
            dig: URL_SAFE_NO_PAD.encode(grant.digest.as_bytes()),
            tier: grant.tier.clone(),
            pol: grant.policy.clone(),
            epo: grant.epoch.clone(),
            jti: jti.clone(),
            iat: grant.issued_at.seconds(),
            nbf: grant.issued_at.seconds(),
            exp: grant.expires_at.seconds(),
        };
        let token = self.sign(&claims)?;
        Some(Minted { jti, hash: hash_of(&token), token })
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Option<String> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(self.kid.clone());
        // a quorum of many long names could make it longer than what is looked at
        jsonwebtoken::encode(&header, claims, &self.encoding).ok().filter(|token| token.len() <= MAX_TOKEN)
    }

    /// Checks everything that can be told from the token and the time.
    pub(crate) fn check(&self, token: &str, now: Timestamp) -> Result<Checked, Bad> {
        if token.len() > MAX_TOKEN {
            return Err(Bad::Length);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(body), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(Bad::Form);
        };
        // the decoder takes one spelling of each text: no padding, no stray bits at the end
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Bad::Form);
        let (head, claims, sealed) = (decoded(header)?, decoded(body)?, decoded(signature)?);
        let head: StrictHeader = serde_json::from_slice(&head).map_err(|_| Bad::Header)?;
        let is_kid = head.kid.len() == 16 && head.kid.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_kid {
            return Err(Bad::Kid);
        }
        let key = self.known.get(&head.kid).ok_or(Bad::UnknownKey)?;
        if key.purpose != KeyPurpose::Approval {
            return Err(Bad::KeyPurpose);
        }
        if head.alg != "EdDSA" {
            return Err(Bad::Algorithm);
        }
        if head.typ != TYPE {
            return Err(Bad::Type);
        }
        let sealed = Signature::from_slice(&sealed).map_err(|_| Bad::Signature)?;
        let signed = token.get(..header.len() + 1 + body.len()).ok_or(Bad::Form)?;
        key.public.verify_strict(signed.as_bytes(), &sealed).map_err(|_| Bad::Signature)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| Bad::Claims)?;
        let digest = self.judge(&claims, now)?;
        Ok(Checked { claims, digest, hash: hash_of(token) })
    }

    fn judge(&self, claims: &Claims, now: Timestamp) -> Result<PlanDigest, Bad> {
        if claims.iss != self.issuer {
            return Err(Bad::Issuer);
        }
        if claims.aud != self.audience {
            return Err(Bad::Audience);
        }
        if claims.rev != 1 {
            return Err(Bad::Revision);
        }
        if claims.exe != "*" {
            return Err(Bad::Executor);
        }
        let digest = format!("sha256:{}", hex::encode(URL_SAFE_NO_PAD.decode(&claims.dig).map_err(|_| Bad::Claims)?));
        let digest = digest.parse().map_err(|_| Bad::Claims)?;
        let now = now.seconds();
        if claims.exp.checked_sub(claims.iat).is_none_or(|life| !(0..=LIFETIME).contains(&life)) {
            return Err(Bad::Lifetime);
        }
        if claims.iat > now.saturating_add(AHEAD) {
            return Err(Bad::IssuedAhead);
        }
        if claims.nbf > now.saturating_add(AHEAD) || claims.nbf != claims.iat {
            return Err(Bad::NotYet);
        }
        if now >= claims.exp {
            return Err(Bad::Expired);
        }
        Ok(digest)
    }
}

impl Checked {
    /// The approval that the token is for.
    pub(crate) fn approval(&self) -> ApprovalId {
        ApprovalId::given(self.claims.act.clone())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, clippy::as_conversions, reason = "tests")]
mod tests;
