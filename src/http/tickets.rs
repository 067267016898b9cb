//! Tickets for the live feed: a browser cannot send a header with a WebSocket.
//!
//! A ticket is 256 random bits, good for thirty seconds, once, for the session
//! and the Origin it was made for. Only its hash is kept, and that in memory.

use std::{collections::HashMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use opspilot_kernel::clock::SharedClock;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::guard::Principal;

/// How long a ticket is good for.
pub const LIFETIME: Duration = Duration::from_secs(30);
/// How many may be out at once.
const MOST: usize = 10_000;
/// How many of them may be one account's.
const MOST_EACH: usize = 64;

struct Ticket {
    holder: Arc<Principal>,
    origin: Option<String>,
    until: Duration,
}

/// Tickets that were given out and not used.
pub struct Tickets {
    clock: SharedClock,
    out: Mutex<HashMap<[u8; 32], Ticket>>,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("out", &self.out.lock().len()).finish_non_exhaustive()
    }
}

impl Tickets {
    /// None given out yet.
    pub fn new(clock: SharedClock) -> Tickets {
        Tickets { clock, out: Mutex::default() }
    }

    /// A ticket for this caller, to be used from this Origin. `None` if too many are out.
    pub fn issue(&self, holder: Arc<Principal>, origin: Option<&str>) -> Option<String> {
        let now = self.clock.elapsed();
        let mut out = self.out.lock();
        out.retain(|_, ticket| ticket.until > now);
        if out.len() >= MOST || out.values().filter(|ticket| ticket.holder.user == holder.user).count() >= MOST_EACH {
            return None;
        }
        let text = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        out.insert(hash(&text), Ticket { holder, origin: origin.map(str::to_owned), until: now + LIFETIME });
        Some(text)
    }

    /// Takes a ticket back: who it was made for, if it is good. It is good once.
    ///
    /// One that was made without an Origin is good from any that got this far: a program that asks for it names
    /// none, while its WebSocket library may; a browser always names the same for both.
    ///
    /// The caller still asks [`super::auth::Auth::still`] whether the session holds.
    pub fn redeem(&self, text: &str, origin: Option<&str>) -> Option<Arc<Principal>> {
        let ticket = self.out.lock().remove(&hash(text))?;
        let same = ticket.origin.as_deref().is_none_or(|made| Some(made) == origin);
        (ticket.until > self.clock.elapsed() && same).then_some(ticket.holder)
    }
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use opspilot_kernel::{clock::ManualClock, ids::SessionId, principal::Role, time::Timestamp};

    use super::*;
    use crate::http::guard::Via;

    fn somebody(name: &str) -> Arc<Principal> {
        Arc::new(Principal { user: name.to_owned(), role: Role::Viewer, groups: Vec::new(), via: Via::Session(SessionId::random()) })
    }

    #[test]
    fn t14_a_ticket_is_good_once_for_thirty_seconds_from_one_origin() {
        let clock = ManualClock::at(Timestamp::ZERO);
        let tickets = Tickets::new(clock.clone());
        let ada = somebody("ada");
        let issue = |origin| tickets.issue(Arc::clone(&ada), origin).unwrap();

        let ticket = issue(Some("http://ops"));
        assert_eq!(ticket.len(), 43, "256 bits");
        assert_eq!(tickets.redeem(&ticket, Some("http://ops")), Some(Arc::clone(&ada)));
        assert_eq!(tickets.redeem(&ticket, Some("http://ops")), None, "used");

        let ticket = issue(Some("http://ops"));
        assert_eq!(tickets.redeem(&ticket, Some("http://evil")), None, "another origin");
        assert_eq!(tickets.redeem(&ticket, Some("http://ops")), None, "a wrong try uses it up");

        let ticket = issue(Some("http://ops"));
        assert_eq!(tickets.redeem(&ticket, None), None, "an origin that is not named again");
        let ticket = issue(None);
        assert!(tickets.redeem(&ticket, Some("http://ops")).is_some(), "made by a program that names none");

        let ticket = issue(None);
        clock.advance(Duration::from_millis(29_999));
        assert!(tickets.redeem(&ticket, None).is_some());
        let ticket = issue(None);
        clock.advance(Duration::from_secs(30));
        assert_eq!(tickets.redeem(&ticket, None), None, "too old");
        assert_eq!(tickets.redeem("", None), None);
    }

    #[test]
    fn tickets_are_bounded_for_each_account_and_in_all() {
        let clock = ManualClock::at(Timestamp::ZERO);
        let tickets = Tickets::new(clock.clone());
        let ada = somebody("ada");
        let given = (0..100).filter(|_| tickets.issue(Arc::clone(&ada), None).is_some()).count();
        assert_eq!(given, MOST_EACH);
        assert!(tickets.issue(somebody("eve"), None).is_some(), "others still get theirs");
        clock.advance(LIFETIME);
        assert!(tickets.issue(ada, None).is_some(), "room again");
    }
}
