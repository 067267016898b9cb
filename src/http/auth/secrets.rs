//! The keys that prove sessions, and what is derived from them.
//!
//! One Ed25519 key signs session tokens and nothing else. It lies in `<data>/keys/session.key`; what such a file must be
//! like is the ledger's [`KeyFile`] to say.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{SigningKey, pkcs8::EncodePrivateKey as _};
use hmac::{Hmac, Mac as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use opspilot_kernel::{ids::SessionId, time::Timestamp};
use opspilot_ledger::{KeyError, KeyFile, KeyPurpose, Ledger, LedgerError, kid_of};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

const TYPE: &str = "opspilot-session+jwt";
const ISSUER: &str = "opspilot";
const AUDIENCE: &str = "opspilot-session";
/// No token of ours comes near this; longer ones are not looked at.
const MAX_TOKEN: usize = 2048;

/// Why sessions cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Whether it may be used cannot be found out.
    #[error("the ledger does not answer: {0}")]
    Ledger(#[from] LedgerError),
}

/// What a session token says. The session's row decides; this only names it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    sid: SessionId,
    iat: i64,
    exp: i64,
}

/// Signs and checks session tokens.
pub struct Secrets {
    encoding: EncodingKey,
    decoding: DecodingKey,
    kid: String,
    seed: [u8; 32],
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.kid)
    }
}

impl Secrets {
    /// Reads the key in the data directory `dir`, or makes one. One that the audit log says was revoked is refused: whoever
    /// has it could have signed sessions of anybody.
    pub fn open(dir: &Path, ledger: &Ledger) -> Result<Secrets, OpenError> {
        let (key, _) = KeyFile::open(dir, KeyPurpose::Session)?;
        if let Some(refusal) = ledger.read_blocking(|reader| reader.key_refusal(dir, &key))? {
            return Err(refusal.into());
        }
        let unusable = || KeyError::Unusable { path: KeyPurpose::Session.path(dir), purpose: KeyPurpose::Session };
        Ok(Secrets::from_seed(*key.seed()).ok_or_else(unusable)?)
    }

    fn from_seed(seed: [u8; 32]) -> Option<Secrets> {
        let key = SigningKey::from_bytes(&seed);
        let der = key.to_pkcs8_der().ok()?;
        let public = key.verifying_key().to_bytes();
        let kid = kid_of(&public);
        let encoding = EncodingKey::from_ed_der(der.as_bytes());
        Some(Secrets { encoding, decoding: DecodingKey::from_ed_der(&public), kid, seed })
    }

    /// A token that names the session.
    pub fn sign(&self, user: &str, session: &SessionId, at: Timestamp, expires: Timestamp) -> Option<String> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(self.kid.clone());
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user.to_owned(),
            sid: session.clone(),
            iat: at.seconds(),
            exp: expires.seconds(),
        };
        jsonwebtoken::encode(&header, &claims, &self.encoding).ok()
    }

    /// The session that a token names, if the token is ours and still valid at `now`.
    pub fn verify(&self, token: &str, now: Timestamp) -> Option<SessionId> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        if header.alg != Algorithm::EdDSA || header.typ.as_deref() != Some(TYPE) || header.kid.as_deref() != Some(&self.kid) {
            return None;
        }
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(&[AUDIENCE]);
        rules.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // time is checked below, by the injected clock
        rules.validate_exp = false;
        rules.validate_nbf = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &rules).ok()?.claims;
        (now.seconds() < claims.exp && claims.iat <= now.seconds() + 2).then_some(claims.sid)
    }

    /// A keyed hash of `data` that is good for `purpose` only.
    pub fn keyed(&self, purpose: &str, data: &[u8]) -> [u8; 32] {
        let key = mac(&self.seed, &[b"opspilot ", purpose.as_bytes()]);
        mac(&key, &[data])
    }

    /// What a browser session sends with unsafe methods to show that our own page sent them.
    pub fn csrf_token(&self, session: &SessionId) -> String {
        URL_SAFE_NO_PAD.encode(self.keyed("csrf", session.as_str().as_bytes()))
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            for part in parts {
                mac.update(part);
            }
            mac.finalize().into_bytes().into()
        }
        // HMAC takes keys of any length; were that ever to change, nothing would verify
        Err(_) => rand::random(),
    }
}

#[cfg(test)]
mod tests {
    use opspilot_kernel::clock::SystemClock;
    use opspilot_ledger::Options;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn the_key_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(Options::new(dir.path(), SystemClock::shared())).unwrap();
        let first = Secrets::open(dir.path(), &ledger).unwrap();
        let session = SessionId::random();
        let token = first.sign("ada", &session, at(100), at(200)).unwrap();
        let again = Secrets::open(dir.path(), &ledger).unwrap();
        assert_eq!(again.verify(&token, at(150)), Some(session));
        std::fs::write(dir.path().join("keys/session.key"), "nonsense").unwrap();
        let refused = Secrets::open(dir.path(), &ledger).unwrap_err().to_string();
        assert!(refused.contains("session.key") && refused.contains("ends all sessions"), "{refused}");
    }

    #[test]
    fn only_a_valid_token_of_ours_is_taken() {
        let ours = Secrets::from_seed([1; 32]).unwrap();
        let theirs = Secrets::from_seed([2; 32]).unwrap();
        let session = SessionId::random();
        let token = ours.sign("ada", &session, at(100), at(200)).unwrap();
        assert_eq!(ours.verify(&token, at(199)), Some(session.clone()));
        assert_eq!(ours.verify(&token, at(200)), None, "expired, without leeway");
        assert_eq!(ours.verify(&token, at(90)), None, "from the future");
        assert_eq!(theirs.verify(&token, at(150)), None, "another key");
        let parts: Vec<&str> = token.split('.').collect();
        let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#), parts[1]);
        let hs256 = format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","typ":"{TYPE}","kid":"{}"}}"#, ours.kid)),
            parts[1],
            parts[2]
        );
        let retyped = format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{}"}}"#, ours.kid)),
            parts[1],
            parts[2]
        );
        for bad in ["", "a.b.c", none.as_str(), hs256.as_str(), retyped.as_str(), &token[..token.len() - 4], &"a".repeat(5000)] {
            assert_eq!(ours.verify(bad, at(150)), None, "{bad}");
        }
    }

    #[test]
    fn purposes_do_not_mix() {
        let secrets = Secrets::from_seed([1; 32]).unwrap();
        assert_ne!(secrets.keyed("csrf", b"x"), secrets.keyed("idempotency", b"x"));
    }
}
