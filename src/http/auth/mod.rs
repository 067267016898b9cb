//! Who calls: sessions, API keys, passwords, and a short memory of answers already found.
//!
//! The ledger decides. What is remembered here of a credential holds until any
//! account, session or key changes: every such change goes through
//! [`Auth::settle`], which makes the memory worthless. So a log-out or a
//! disabled account counts at once.

pub mod apikey;
pub mod passwords;
pub mod routes;
pub mod secrets;
pub mod throttle;

use std::{collections::HashMap, future::Future, path::Path, sync::Arc, time::Duration};

use actix_web::http::header::{self, HeaderMap};
use opspilot_kernel::{clock::SharedClock, ids::SessionId, principal::Role, time::Timestamp};
use opspilot_ledger::{KeyOwner, Ledger, LedgerError, Priority, SessionRecord};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use self::{
    passwords::{Cost, Passwords},
    secrets::{OpenError, Secrets},
    throttle::Throttle,
};
use super::guard::{Principal, Via};

/// The session cookie's name without TLS, and with it.
pub const COOKIE: &str = "opspilot_session";
/// With TLS the browser itself holds the cookie to this host and to TLS.
pub const COOKIE_TLS: &str = "__Host-opspilot_session";

/// How many credentials are remembered; past that the memory starts afresh.
const REMEMBERED: usize = 20_000;
/// How many refused credentials are remembered; past that the memory starts afresh.
const REFUSED: usize = 4_096;
/// How long it is remembered that a credential was refused, if no account changes meanwhile.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// How often the ledger is asked about one credential while accounts change all the time.
const TRIES: usize = 4;
/// How exactly it is stored when a session or key was last used.
const SEEN_EVERY: Duration = Duration::from_secs(60);

/// How long sessions last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionPolicy {
    /// Without a request for so long, a session is over.
    pub idle: Duration,
    /// A session is over so long after its log-in.
    pub absolute: Duration,
}

impl Default for SessionPolicy {
    fn default() -> SessionPolicy {
        SessionPolicy { idle: Duration::from_secs(30 * 60), absolute: Duration::from_secs(12 * 3600) }
    }
}

#[derive(Debug, Clone)]
struct Known {
    version: u64,
    principal: Arc<Principal>,
    ends: Option<Timestamp>,
    seen: Timestamp,
    stored_seen: Timestamp,
}

/// Sessions, keys and passwords. Clones share everything.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    ledger: Ledger,
    clock: SharedClock,
    secrets: Secrets,
    policy: SessionPolicy,
    passwords: Passwords,
    throttle: Throttle,
    known: Mutex<HashMap<[u8; 32], Known>>,
    refused: Mutex<HashMap<[u8; 32], (u64, Duration)>>,
    version: watch::Sender<u64>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("secrets", &self.0.secrets).finish_non_exhaustive()
    }
}

/// What the credential of a request comes to.
#[derive(Debug, Clone)]
pub enum Identity {
    /// Somebody.
    Known(Arc<Principal>),
    /// There is no credential, or one that was never good; nobody had to be asked.
    Nobody,
    /// The ledger was asked and does not know it, or not any more.
    Refused,
    /// The ledger was not asked, as it was not allowed.
    NotAsked,
}

/// A credential as the request carried it.
enum Credential<'a> {
    Token(&'a str),
    Cookie(&'a str),
    Key(&'a str),
}

fn credential(headers: &HeaderMap) -> Option<Credential<'_>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(authorization) = text(header::AUTHORIZATION.as_str()) {
        let (scheme, value) = authorization.split_once(' ')?;
        let value = value.trim();
        return match scheme.eq_ignore_ascii_case("bearer") {
            true if value.starts_with("opk_") => Some(Credential::Key(value)),
            true => Some(Credential::Token(value)),
            false => None,
        };
    }
    if let Some(key) = text("x-api-key") {
        return Some(Credential::Key(key.trim()));
    }
    let cookies = headers.get_all(header::COOKIE).filter_map(|value| value.to_str().ok());
    cookies.flat_map(|line| line.split(';')).find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        matches!(name, COOKIE | COOKIE_TLS).then_some(Credential::Cookie(value))
    })
}

impl Auth {
    /// Opens the keys in the data directory `dir` (or makes them).
    pub fn open(dir: &Path, ledger: Ledger, clock: SharedClock, policy: SessionPolicy, cost: Cost) -> Result<Auth, OpenError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let secrets = Secrets::open(dir, &ledger)?;
        Ok(Auth(Arc::new(Inner {
            ledger,
            clock,
            secrets,
            policy,
            passwords: Passwords::new(cost, cores),
            throttle: Throttle::default(),
            known: Mutex::default(),
            refused: Mutex::default(),
            version: watch::Sender::new(0),
        })))
    }

    pub(super) fn secrets(&self) -> &Secrets {
        &self.0.secrets
    }

    pub(super) fn throttle(&self) -> &Throttle {
        &self.0.throttle
    }

    /// Hashes and checks passwords.
    pub fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    /// When a session that is opened now ends in any case.
    pub fn session_end(&self) -> Timestamp {
        self.0.clock.now().after(self.0.policy.absolute)
    }

    /// A keyed hash of a body, for `Idempotency-Key`.
    pub fn fingerprint(&self, body: &[u8]) -> [u8; 32] {
        self.0.secrets.keyed("idempotency", body)
    }

    /// Tells of each change of an account, session or key: who holds a long connection looks again with [`Auth::still`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// Carries out a change of accounts, sessions or keys to its end, even if the client
    /// hangs up meanwhile, and makes what is remembered of credentials worthless.
    pub async fn settle<T: 'static, E: From<LedgerError> + 'static>(
        &self,
        change: impl Future<Output = Result<T, E>> + 'static,
    ) -> Result<T, E> {
        let auth = self.clone();
        let task = actix_web::rt::spawn(async move {
            let outcome = change.await;
            auth.0.version.send_modify(|version| *version += 1);
            outcome
        });
        task.await.unwrap_or_else(|_| Err(LedgerError::Panicked.into()))
    }

    fn version(&self) -> u64 {
        *self.0.version.borrow()
    }

    fn of_session(&self, session: &SessionRecord, cookie: bool) -> Option<Known> {
        let now = self.0.clock.now();
        let alive = now < session.expires_at && now.since(session.seen_at) <= self.0.policy.idle;
        alive.then(|| Known {
            version: 0,
            principal: Arc::new(Principal {
                user: session.user.clone(),
                role: session.role,
                groups: session.groups.clone(),
                via: if cookie { Via::Cookie(session.id.clone()) } else { Via::Session(session.id.clone()) },
            }),
            ends: Some(session.expires_at),
            seen: session.seen_at,
            stored_seen: session.seen_at,
        })
    }

    fn of_key(&self, owner: &KeyOwner) -> Option<Known> {
        let key = &owner.key;
        let alive = key.expires_at.is_none_or(|ends| self.0.clock.now() < ends);
        let seen = key.used_at.unwrap_or(key.created_at);
        let role = effective_role(key.role, owner.owner_role)?;
        alive.then(|| Known {
            version: 0,
            principal: Arc::new(Principal { user: key.owner.clone(), role, groups: owner.groups.clone(), via: Via::Key(key.id.clone()) }),
            ends: key.expires_at,
            seen,
            stored_seen: seen,
        })
    }

    /// Who sent the request. The ledger is asked about a credential that is new here only if `may_ask` allows it.
    pub async fn identify(&self, headers: &HeaderMap, may_ask: impl Fn() -> bool) -> Result<Identity, LedgerError> {
        let Some(credential) = credential(headers) else { return Ok(Identity::Nobody) };
        let (text, kind) = match credential {
            Credential::Token(text) => (text, b't'),
            Credential::Cookie(text) => (text, b'c'),
            Credential::Key(text) => (text, b'k'),
        };
        let mut id = Sha256::new();
        id.update([kind]);
        id.update(text.as_bytes());
        let id: [u8; 32] = id.finalize().into();
        for _ in 0..TRIES {
            if let Some(principal) = self.remembered(&id) {
                return Ok(Identity::Known(principal));
            }
            let version = self.version();
            if self.is_refused(&id, version) {
                return Ok(Identity::Nobody);
            }
            // what was good until some account changed is asked about, whatever others do at the same address
            let was_known = self.0.known.lock().contains_key(&id);
            let allowed = || was_known || may_ask();
            let found = match credential {
                Credential::Token(_) | Credential::Cookie(_) => {
                    let Some(session) = self.0.secrets.verify(text, self.0.clock.now()) else { return Ok(Identity::Nobody) };
                    if !allowed() {
                        return Ok(Identity::NotAsked);
                    }
                    let row = self.0.ledger.read(move |reader| reader.session(&session)).await?;
                    row.and_then(|row| self.of_session(&row, kind == b'c'))
                }
                Credential::Key(_) => {
                    if !apikey::is_well_formed(text) {
                        return Ok(Identity::Nobody);
                    }
                    if !allowed() {
                        return Ok(Identity::NotAsked);
                    }
                    let hash = apikey::hash(text);
                    let row = self.0.ledger.read(move |reader| reader.key_owner(&hash)).await?;
                    row.and_then(|row| self.of_key(&row))
                }
            };
            let Some(found) = found else {
                self.refuse(id, version);
                return Ok(Identity::Refused);
            };
            let mut known = self.0.known.lock();
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(id, Known { version, ..found });
            // an account may have changed meanwhile, maybe this one: then it is asked again
        }
        self.remembered(&id).map(Identity::Known).ok_or(LedgerError::Busy)
    }

    /// Whether the ledger just said no to this credential, and nothing has changed since.
    fn is_refused(&self, id: &[u8; 32], version: u64) -> bool {
        let now = self.0.clock.elapsed();
        self.0.refused.lock().get(id).is_some_and(|(of, at)| *of == version && now.saturating_sub(*at) < REFUSED_FOR)
    }

    fn refuse(&self, id: [u8; 32], version: u64) {
        self.0.known.lock().remove(&id);
        let mut refused = self.0.refused.lock();
        if refused.len() >= REFUSED {
            refused.clear();
        }
        refused.insert(id, (version, self.0.clock.elapsed()));
    }

    /// What is remembered of a credential, if it still holds; notes that it was used.
    fn remembered(&self, id: &[u8; 32]) -> Option<Arc<Principal>> {
        let now = self.0.clock.now();
        let version = self.version();
        let mut known = self.0.known.lock();
        let entry = known.get_mut(id)?;
        let ended = entry.ends.is_some_and(|ends| now >= ends);
        let idle = entry.principal.session().is_some() && now.since(entry.seen) > self.0.policy.idle;
        if ended || idle {
            known.remove(id);
            return None;
        }
        if entry.version != version {
            // what was not stored yet would be lost, and the session would look older than it is
            let unstored = (entry.seen > entry.stored_seen).then(|| (Arc::clone(&entry.principal), entry.seen));
            entry.stored_seen = entry.seen;
            drop(known);
            if let Some((principal, seen)) = unstored {
                self.store_seen(&principal, seen);
            }
            return None;
        }
        entry.seen = entry.seen.max(now);
        let due = now.since(entry.stored_seen) >= SEEN_EVERY;
        if due {
            entry.stored_seen = now;
        }
        let principal = Arc::clone(&entry.principal);
        drop(known);
        if due {
            self.store_seen(&principal, now);
        }
        Some(principal)
    }

    fn store_seen(&self, principal: &Arc<Principal>, at: Timestamp) {
        let (ledger, via) = (self.0.ledger.clone(), principal.via.clone());
        actix_web::rt::spawn(async move {
            let stored = ledger.write(Priority::Bulk, move |tx| match &via {
                Via::Session(id) | Via::Cookie(id) => tx.session_seen(id, at),
                Via::Key(id) => tx.key_used(id, at),
            });
            // only how fresh a session looks is at stake; the next use tries again
            drop(stored.await);
        });
    }

    /// The caller as they are now, if their session or key still holds.
    pub async fn still(&self, principal: &Principal) -> Result<Option<Arc<Principal>>, LedgerError> {
        let found = match &principal.via {
            Via::Session(id) | Via::Cookie(id) => {
                let (id, cookie) = (id.clone(), matches!(principal.via, Via::Cookie(_)));
                let row = self.0.ledger.read(move |reader| reader.session(&id)).await?;
                row.and_then(|row| self.of_session(&row, cookie))
            }
            Via::Key(id) => {
                let id = id.clone();
                let row = self.0.ledger.read(move |reader| reader.key_owner_by_id(&id)).await?;
                row.and_then(|row| self.of_key(&row))
            }
        };
        Ok(found.map(|known| known.principal))
    }

    /// Notes that a long connection of this session is in use, so that it does not end for being idle.
    pub fn touch(&self, principal: &Arc<Principal>) {
        self.store_seen(principal, self.0.clock.now());
    }

    /// The session a token names, whether or not the session still exists.
    pub fn session_of(&self, token: &str) -> Option<SessionId> {
        self.0.secrets.verify(token, self.0.clock.now())
    }
}

/// What a key may do now: its own role, unless its owner may less by now; none if nothing is left.
fn effective_role(key: Role, owner: Role) -> Option<Role> {
    if opspilot_ledger::may_have_key(owner, key) {
        Some(key)
    } else if key.includes(owner) && key != Role::Integrator {
        Some(owner)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_demoted_owner_is_demoted_too() {
        use Role::{Admin, Integrator, Operator, Viewer};
        for (key, owner, role) in [
            (Admin, Admin, Some(Admin)),
            (Admin, Operator, Some(Operator)),
            (Operator, Viewer, Some(Viewer)),
            (Viewer, Admin, Some(Viewer)),
            (Integrator, Operator, Some(Integrator)),
            (Integrator, Viewer, None),
            (Admin, Integrator, None),
        ] {
            assert_eq!(effective_role(key, owner), role, "{key:?} of {owner:?}");
        }
    }

    #[test]
    fn the_credential_is_found_where_it_may_stand() {
        let found = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(header::HeaderName::from_static(name), value.parse().unwrap());
            }
            credential(&headers).map(|credential| match credential {
                Credential::Token(text) => format!("token {text}"),
                Credential::Cookie(text) => format!("cookie {text}"),
                Credential::Key(text) => format!("key {text}"),
            })
        };
        assert_eq!(found(&[("authorization", "Bearer abc")]).as_deref(), Some("token abc"));
        assert_eq!(found(&[("authorization", "bearer opk_x")]).as_deref(), Some("key opk_x"));
        assert_eq!(found(&[("x-api-key", "opk_x")]).as_deref(), Some("key opk_x"));
        assert_eq!(found(&[("cookie", "a=b; opspilot_session=abc")]).as_deref(), Some("cookie abc"));
        assert_eq!(found(&[("cookie", "__Host-opspilot_session=abc")]).as_deref(), Some("cookie abc"));
        assert_eq!(
            found(&[("authorization", "Basic abc"), ("cookie", "opspilot_session=abc")]),
            None,
            "a header is never overruled by a cookie"
        );
        assert_eq!(found(&[("cookie", "opspilot_session_x=abc")]), None);
        assert_eq!(found(&[]), None);
    }
}
