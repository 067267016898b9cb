//! Slows down guessing of passwords.
//!
//! Five wrong passwords for one account from one address are free; each further
//! one doubles the wait, from a second to fifteen minutes. Wrong passwords for
//! one account from many addresses are slowed too, at most to one try in ten
//! seconds, and never for an address from which the account logged in lately: so
//! nobody can lock the owner out. Memory is bounded; the oldest entries go first.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

const FREE: u32 = 5;
const FREE_FOR_ACCOUNT: u32 = 50;
const LONGEST: Duration = Duration::from_secs(15 * 60);
const LONGEST_FOR_ACCOUNT: Duration = Duration::from_secs(10);
/// After this long without a wrong password, or since the last right one, all is forgotten.
const FORGET: Duration = Duration::from_secs(24 * 3600);
const MOST: usize = 20_000;

/// Names are not kept: what people type as a name may be a password.
type Account = [u8; 16];

#[derive(Debug, Default, Clone, Copy)]
struct Tries {
    wrong: u32,
    until: Duration,
    last: Duration,
}

#[derive(Debug, Default)]
struct Known {
    pairs: HashMap<(Account, IpAddr), Tries>,
    accounts: HashMap<Account, Tries>,
    welcome: HashMap<(Account, IpAddr), Duration>,
}

/// Remembers wrong passwords.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<Known>);

/// Two spellings of a name are one account where the ledger takes them for one: it looks past the case of ASCII letters.
fn account(name: &str) -> Account {
    let digest: [u8; 32] = Sha256::digest(name.to_ascii_lowercase().as_bytes()).into();
    let mut short = Account::default();
    short.copy_from_slice(digest.get(..16).unwrap_or(&[0; 16]));
    short
}

impl Tries {
    fn wait(&self, now: Duration) -> Duration {
        self.until.saturating_sub(now)
    }

    fn wrong(&mut self, now: Duration, free: u32, longest: Duration) {
        if now.saturating_sub(self.last) > FORGET {
            *self = Tries::default();
        }
        self.wrong = self.wrong.saturating_add(1);
        self.last = now;
        if let Some(over) = self.wrong.checked_sub(free) {
            self.until = now + Duration::from_secs(1 << over.min(20)).min(longest);
        }
    }
}

impl Throttle {
    /// How long this address must wait before it may try this account; zero if it may now.
    pub fn wait(&self, name: &str, address: IpAddr, now: Duration) -> Duration {
        let account = account(name);
        let known = self.0.lock();
        let pair = known.pairs.get(&(account, address)).map_or(Duration::ZERO, |tries| tries.wait(now));
        let welcome = known.welcome.get(&(account, address)).is_some_and(|last| now.saturating_sub(*last) <= FORGET);
        let all = if welcome { Duration::ZERO } else { known.accounts.get(&account).map_or(Duration::ZERO, |tries| tries.wait(now)) };
        pair.max(all)
    }

    /// Remembers a wrong password.
    pub fn wrong(&self, name: &str, address: IpAddr, now: Duration) {
        let account = account(name);
        let mut known = self.0.lock();
        bound(&mut known.pairs, |tries| tries.last);
        bound(&mut known.accounts, |tries| tries.last);
        known.pairs.entry((account, address)).or_default().wrong(now, FREE, LONGEST);
        known.accounts.entry(account).or_default().wrong(now, FREE_FOR_ACCOUNT, LONGEST_FOR_ACCOUNT);
    }

    /// Remembers a right one, which makes up for the wrong ones from this address.
    pub fn right(&self, name: &str, address: IpAddr, now: Duration) {
        let account = account(name);
        let mut known = self.0.lock();
        known.pairs.remove(&(account, address));
        bound(&mut known.welcome, |last| *last);
        known.welcome.insert((account, address), now);
    }
}

/// Makes room when a map is full: a tenth goes, the oldest first.
fn bound<K, V>(map: &mut HashMap<K, V>, last: impl Fn(&V) -> Duration) {
    if map.len() < MOST {
        return;
    }
    let mut times: Vec<Duration> = map.values().map(&last).collect();
    let (_, oldest, _) = times.select_nth_unstable(MOST / 10);
    let oldest = *oldest;
    let mut left = MOST / 10;
    map.retain(|_, value| {
        let forget = left > 0 && last(value) <= oldest;
        left -= usize::from(forget);
        !forget
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    #[test]
    fn t12_guessing_from_one_address_waits_twice_as_long_each_time() {
        let throttle = Throttle::default();
        let mut now = Duration::from_secs(1000);
        let mut waits = Vec::new();
        for _ in 0..18 {
            throttle.wrong("ada", address(1), now);
            let wait = throttle.wait("ada", address(1), now);
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900]);
        assert_eq!(throttle.wait("ada", address(2), now), Duration::ZERO, "another address is not held for it");
        assert_eq!(throttle.wait("eve", address(1), now), Duration::ZERO, "nor another account");
        now += Duration::from_secs(900);
        throttle.right("ada", address(1), now);
        throttle.wrong("ada", address(1), now);
        assert_eq!(throttle.wait("ada", address(1), now), Duration::ZERO, "a right password makes up for it");
    }

    #[test]
    fn t12_all_spellings_of_a_name_are_one_account() {
        let throttle = Throttle::default();
        let now = Duration::from_secs(1000);
        for bits in 0..32_u32 {
            let spelled = |(at, letter): (usize, char)| if bits >> at & 1 == 1 { letter.to_ascii_uppercase() } else { letter };
            let name: String = "admin".chars().enumerate().map(spelled).collect();
            throttle.wrong(&name, address(1), now);
        }
        assert_eq!(throttle.wait("aDmIn", address(1), now), LONGEST);
        throttle.right("ADMIN", address(2), now);
        assert_eq!(throttle.0.lock().welcome.keys().map(|(account, _)| *account).collect::<Vec<_>>(), [account("admin")]);
        assert_eq!(throttle.wait("admin\u{e9}", address(1), now), Duration::ZERO, "another name");
    }

    #[test]
    fn t12_the_owner_cannot_be_locked_out_by_others() {
        let throttle = Throttle::default();
        let now = Duration::from_secs(1000);
        throttle.right("ada", address(9), now);
        for n in 10..2000 {
            throttle.wrong("ada", address(n), now);
        }
        let stranger = throttle.wait("ada", address(3000), now);
        assert!(stranger > Duration::ZERO && stranger <= LONGEST_FOR_ACCOUNT, "{stranger:?}");
        assert_eq!(throttle.wait("ada", address(9), now), Duration::ZERO, "from where she logged in lately she still can");
    }

    #[test]
    fn t12_memory_is_bounded_under_ten_thousand_names() {
        let throttle = Throttle::default();
        for n in 0..60_000_u32 {
            throttle.wrong(&format!("name-{n}"), address(n), Duration::from_millis(u64::from(n)));
        }
        let known = throttle.0.lock();
        assert!(known.pairs.len() <= MOST && known.accounts.len() <= MOST, "{} {}", known.pairs.len(), known.accounts.len());
    }
}
