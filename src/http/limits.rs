//! How many requests a client may make: a sliding window for each client and class of route.
//!
//! The window is the usual approximation by two fixed ones: what was counted in
//! the minute before weighs as much as the part of it that the last sixty
//! seconds still cover. It needs two numbers a client and forgets nothing early.
//! Memory is bounded: past `clients`, the client that was idle longest is forgotten.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use actix_web::{
    HttpRequest,
    dev::ServiceRequest,
    http::{Method, header::HeaderMap},
};
use opspilot_kernel::{clock::SharedClock, principal::Role};
use parking_lot::Mutex;

use super::{
    guard::{Principal, Via},
    settings::RateLimits,
};
use crate::config::Network;

const WINDOW: Duration = Duration::from_secs(60);

/// What kind of request counts against what limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// `GET` and `HEAD`.
    Read,
    /// Everything else.
    Write,
    /// Log-ins, by address.
    Login,
    /// Credentials that nobody knows, by address: each costs a look into the ledger. As many as writes.
    Unknown,
    /// Signals: limited by their queue, unless nobody we know sends them; those count as writes.
    Ingest,
    /// Pings of heartbeats that nobody knows, by address. As many as log-ins.
    Ping,
    /// Probes, metrics and static files: not limited; nor are pings before it is known whose they are.
    Exempt,
}

impl Class {
    /// The class of a request.
    pub fn of(method: &Method, path: &str) -> Class {
        match path {
            "/api/auth/login" => Class::Login,
            "/" | "/api/livez" | "/api/readyz" | "/api/metrics" | "/api/openapi.json" => Class::Exempt,
            "/api/events" => Class::Ingest,
            _ if path.starts_with("/api/docs/") || path.starts_with("/page/") || path.starts_with("/ping/") => Class::Exempt,
            _ if path.starts_with("/api/ingest/") || path.starts_with("/v1/") || path.starts_with("/v2/") => Class::Ingest,
            _ if method == Method::GET || method == Method::HEAD => Class::Read,
            _ => Class::Write,
        }
    }
}

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Client {
    /// A user with all their sessions.
    User(String),
    /// An API key.
    Key(String),
    /// Nobody we know, by address; IPv6 by its /64, which is what one client has.
    Address(IpAddr),
}

impl Client {
    /// The client of a request: the key or user, else the address.
    pub fn of(principal: Option<&Principal>, address: IpAddr) -> Client {
        match principal {
            Some(Principal { via: Via::Key(id), .. }) => Client::Key(id.to_string()),
            Some(principal) => Client::User(principal.user.clone()),
            None => Client::address(address),
        }
    }

    /// The client at an address.
    pub fn address(address: IpAddr) -> Client {
        Client::Address(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
            v4 => v4,
        })
    }
}

/// What is left, as the headers say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Requests a minute.
    pub limit: u32,
    /// Requests left now.
    pub remaining: u32,
    /// When everything is back, in unix seconds.
    pub reset: i64,
    /// Seconds until one more is allowed; 0 if one is now.
    pub retry_after: u64,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    window: u64,
    now: u32,
    before: u32,
    seen: Duration,
}

/// Counts requests. Shared by all workers.
#[derive(Debug)]
pub struct RateLimiter {
    clock: Clock,
    limits: RateLimits,
    counted: Mutex<HashMap<(Client, Class), Counted>>,
}

struct Clock(SharedClock);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("clock")
    }
}

impl RateLimiter {
    /// A limiter that remembers nobody yet.
    pub fn new(clock: SharedClock, limits: RateLimits) -> RateLimiter {
        RateLimiter { clock: Clock(clock), limits, counted: Mutex::default() }
    }

    fn limit(&self, class: Class, role: Option<Role>) -> u32 {
        let own = self.limits.roles.iter().find(|(named, ..)| Some(*named) == role);
        match class {
            Class::Login | Class::Ping => self.limits.logins,
            Class::Write | Class::Ingest | Class::Unknown => own.map_or(self.limits.writes, |(_, _, writes)| *writes),
            Class::Read | Class::Exempt => own.map_or(self.limits.reads, |(_, reads, _)| *reads),
        }
    }

    /// How an address stands that shows a credential nobody here knows yet; `Err` if it may not just now. Counts nothing.
    pub fn unknown(&self, address: IpAddr) -> Result<Standing, Standing> {
        self.weigh(Client::address(address), Class::Unknown, None, false)
    }

    /// Counts a credential that turned out to be nobody's.
    pub fn was_unknown(&self, address: IpAddr) {
        // whether it was one too many only matters to the next
        let (Ok(_) | Err(_)) = self.weigh(Client::address(address), Class::Unknown, None, true);
    }

    /// Counts a request (unless its class is exempt) and says how the client stands.
    ///
    /// Returns `Err` with the standing if the request is one too many; then it is not counted.
    pub fn take(&self, client: Client, class: Class, role: Option<Role>) -> Result<Standing, Standing> {
        self.weigh(client, class, role, true)
    }

    fn weigh(&self, client: Client, class: Class, role: Option<Role>, count: bool) -> Result<Standing, Standing> {
        let limit = self.limit(class, role);
        let (class, cost) = match class {
            Class::Exempt => (Class::Read, 0),
            Class::Ingest if role.is_some() => (Class::Write, 0),
            Class::Ingest => (Class::Write, 1),
            limited => (limited, 1),
        };
        let elapsed = self.clock.0.elapsed();
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let width = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
        let (window, into) = (millis / width, millis % width);

        let mut counted = self.counted.lock();
        let key = (client, class);
        let count = count && cost > 0;
        if count && counted.len() >= self.limits.clients && !counted.contains_key(&key) {
            make_room(&mut counted, elapsed);
        }
        let mut slot = counted.get(&key).copied().unwrap_or(Counted { window, now: 0, before: 0, seen: elapsed });
        if window > slot.window {
            slot.before = if window == slot.window + 1 { slot.now } else { 0 };
            slot.now = 0;
            slot.window = window;
        }
        slot.seen = elapsed;
        // what the last sixty seconds still cover of the window before, rounded up
        let carried = u64::from(slot.before).saturating_mul(width - into).div_ceil(width);
        let used = u64::from(slot.now).saturating_add(carried);
        let fits = used.saturating_add(cost) <= u64::from(limit);
        if fits && count {
            slot.now = slot.now.saturating_add(1);
        }
        if count {
            counted.insert(key, slot);
        }
        drop(counted);

        let used = if fits { used + cost } else { used };
        let remaining = u64::from(limit).saturating_sub(used);
        let until_reset = if slot.now > 0 {
            2 * width - into
        } else if slot.before > 0 {
            width - into
        } else {
            0
        };
        let standing = Standing {
            limit,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset: self.clock.0.now().after(Duration::from_millis(until_reset)).millis().saturating_add(999) / 1000,
            retry_after: if fits { 0 } else { seconds_until_room(&slot, limit, into, width) },
        };
        if fits { Ok(standing) } else { Err(standing) }
    }

    /// How many clients are remembered.
    pub fn clients(&self) -> usize {
        self.counted.lock().len()
    }
}

/// Whole seconds until the weight of the past leaves room for one request.
fn seconds_until_room(slot: &Counted, limit: u32, into: u64, width: u64) -> u64 {
    let room_at = |now: u32, before: u32, into: u64| -> u64 {
        // carried = before × (width − t) / width must be at most limit − now − 1
        let allowed = u64::from(limit.saturating_sub(now).saturating_sub(1));
        let before = u64::from(before).max(1);
        width.saturating_sub(allowed.saturating_mul(width) / before).saturating_sub(into)
    };
    let millis = if slot.now < limit { room_at(slot.now, slot.before, into) } else { (width - into) + room_at(0, slot.now, 0) };
    millis.div_ceil(1000).max(1)
}

/// Forgets who has nothing to remember, and if that is nobody, the one that was idle longest.
fn make_room(counted: &mut HashMap<(Client, Class), Counted>, now: Duration) {
    let full = counted.len();
    counted.retain(|_, slot| now.saturating_sub(slot.seen) < 2 * WINDOW);
    if counted.len() == full {
        // a tenth at once, so that a flood of addresses does not sort the whole map for each
        let mut seen: Vec<Duration> = counted.values().map(|slot| slot.seen).collect();
        let tenth = full / 10;
        let (_, oldest, _) = seen.select_nth_unstable(tenth.min(full.saturating_sub(1)));
        let oldest = *oldest;
        let mut left = tenth.max(1);
        counted.retain(|_, slot| {
            let forget = left > 0 && slot.seen <= oldest;
            left -= usize::from(forget);
            !forget
        });
    }
}

/// What a request's way says about it: the client's address and whether it came in by TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The client's address.
    pub address: IpAddr,
    /// Whether it came in by TLS, here or at a trusted proxy.
    pub tls: bool,
}

/// Forwarded headers count only when the peer is a trusted proxy; then the last address that is not one is the client's.
pub fn origin(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[Network], tls: bool) -> Origin {
    let peer = peer.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)).to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer) {
        return Origin { address: peer, tls };
    }
    let mut address = peer;
    let forwarded: Vec<&str> = headers.get_all("x-forwarded-for").filter_map(|value| value.to_str().ok()).collect();
    for hop in forwarded.iter().rev().flat_map(|value| value.rsplit(',')) {
        let Ok(hop) = hop.trim().parse::<IpAddr>() else { break };
        address = hop.to_canonical();
        if !is_trusted(address) {
            break;
        }
    }
    let said_tls = headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
    Origin { address, tls: tls || said_tls }
}

/// [`origin`] of a request on its way in.
pub(super) fn origin_of(request: &ServiceRequest, trusted: &[Network], tls: bool) -> Origin {
    origin(request.peer_addr().map(|peer| peer.ip()), request.headers(), trusted, tls)
}

/// Where a request came from, as the shell found out.
pub fn origin_in(request: &HttpRequest) -> Origin {
    use actix_web::HttpMessage as _;
    let unknown = Origin { address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), tls: false };
    request.extensions().get::<Origin>().copied().unwrap_or(unknown)
}
