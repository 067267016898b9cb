//! Passwords: Argon2id on a bounded pool.
//!
//! Hashing is meant to be slow, so it is the cheapest way to exhaust us: at most
//! two hashes run for each core, a few wait, and beyond that a log-in is told to
//! come back. An unknown user costs a hash like a known one.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString},
};
use opspilot_kernel::error::ErrorKind;
use tokio::sync::Semaphore;

use crate::http::error::{ApiError, ApiResult};

/// The shortest password, in characters.
pub const MIN_CHARS: usize = 12;
/// The longest password, in characters.
pub const MAX_CHARS: usize = 1024;
/// How many may wait for a hash, for each that may run.
const WAITING: usize = 16;

/// What a hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Default for Cost {
    /// 19 MiB, two passes, one lane: the least that OWASP advises for Argon2id.
    fn default() -> Cost {
        Cost { memory_kib: 19 * 1024, passes: 2, lanes: 1 }
    }
}

impl Cost {
    /// As good as nothing. For tests, which log in thousands of times; no configuration can reach it.
    pub fn cheap_for_tests() -> Cost {
        Cost { memory_kib: 8, passes: 1, lanes: 1 }
    }
}

/// Hashes and checks passwords.
#[derive(Debug, Clone)]
pub struct Passwords {
    cost: Cost,
    running: Arc<Semaphore>,
    queued: Arc<AtomicUsize>,
    most: usize,
    nobody: Arc<str>,
}

/// Whether a password may be set. Returns what is wrong with it, never the password.
pub fn acceptable(password: &str) -> Result<(), String> {
    let chars = password.chars().count();
    if (MIN_CHARS..=MAX_CHARS).contains(&chars) { Ok(()) } else { Err(format!("a password has {MIN_CHARS} to {MAX_CHARS} characters")) }
}

fn argon(cost: Cost) -> Option<Argon2<'static>> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, None).ok()?;
    Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash_now(cost: Cost, password: &str) -> Option<String> {
    let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).ok()?;
    Some(argon(cost)?.hash_password(password.as_bytes(), &salt).ok()?.to_string())
}

/// Hashes a password in the caller's thread: for the command line, which has no pool.
pub fn hash_blocking(cost: Cost, password: &str) -> ApiResult<String> {
    hash_now(cost, password).ok_or_else(|| ApiError::internal("argon2 refused to hash"))
}

fn verify_now(hash: &str, password: &str) -> bool {
    let Ok(parsed) = PasswordHash::new(hash) else { return false };
    // the parameters are those of the stored hash
    Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok()
}

impl Passwords {
    /// A pool for `cores` cores.
    pub fn new(cost: Cost, cores: usize) -> Passwords {
        let running = 2 * cores.max(1);
        // a hash that nothing matches; checking against it takes as long as any other
        let nobody = format!(
            "$argon2id$v=19$m={},t={},p={}$bm9ib2R5LW5vYm9keS1uYg$bm9ib2R5IG1hdGNoZXMgdGhpcyBub2JvZHkgbm9ibwA",
            cost.memory_kib, cost.passes, cost.lanes
        );
        Passwords {
            cost,
            running: Arc::new(Semaphore::new(running)),
            queued: Arc::default(),
            most: running * (1 + WAITING),
            nobody: nobody.into(),
        }
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> ApiResult<T> {
        struct Queued(Arc<AtomicUsize>);
        impl Drop for Queued {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let before = self.queued.fetch_add(1, Ordering::Relaxed);
        let queued = Queued(Arc::clone(&self.queued));
        if before >= self.most {
            return Err(ApiError::new(ErrorKind::Unavailable, "busy", "too many log-ins at once; try again shortly").retry_after(2));
        }
        let permit = Arc::clone(&self.running).acquire_owned().await.map_err(ApiError::internal)?;
        let work = move || {
            // held by the thread: a caller that hangs up does not make room for more hashes
            let _held = (permit, queued);
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)
    }

    /// The hash to store for a password.
    pub async fn hash(&self, password: String) -> ApiResult<String> {
        let cost = self.cost;
        self.run(move || hash_now(cost, &password)).await?.ok_or_else(|| ApiError::internal("argon2 refused to hash"))
    }

    /// Whether the password fits the stored hash; without one the answer is no, after the same work.
    pub async fn verify(&self, hash: Option<String>, password: String) -> ApiResult<bool> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.to_string());
        Ok(self.run(move || verify_now(&hash, &password)).await? && known)
    }

    /// A password for the first log-in: 24 characters, about 142 bits, without look-alikes.
    pub fn generate() -> String {
        const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789-_=+.@";
        let letters = std::iter::repeat_with(|| LETTERS.get(usize::from(rand::random::<u8>() & 63)).copied()).flatten();
        letters.take(24).map(char::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_cost_is_what_owasp_advises() {
        let hash = hash_now(Cost::default(), "correct horse battery staple").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(verify_now(&hash, "correct horse battery staple"));
        assert!(!verify_now(&hash, "correct horse battery stapler"));
    }

    #[tokio::test]
    async fn t12_nobody_matches_but_costs_a_hash() {
        let passwords = Passwords::new(Cost::cheap_for_tests(), 1);
        PasswordHash::new(&passwords.nobody).expect("the stand-in is a hash that can be checked, and so costs what any does");
        assert!(!passwords.verify(None, "anything at all".to_owned()).await.unwrap());
        let hash = passwords.hash("anything at all".to_owned()).await.unwrap();
        assert!(passwords.verify(Some(hash), "anything at all".to_owned()).await.unwrap());
    }

    #[tokio::test]
    async fn t12_hashes_beyond_the_bound_are_told_to_come_back() {
        let passwords = Passwords::new(Cost::cheap_for_tests(), 1);
        let held = Arc::clone(&passwords.running).acquire_many_owned(2).await.unwrap();
        let mut waiting: Vec<_> = (0..passwords.most).map(|_| Box::pin(passwords.verify(None, String::new()))).collect();
        for future in &mut waiting {
            assert!(futures_util::poll!(future).is_pending());
        }
        let error = passwords.verify(None, String::new()).await.unwrap_err();
        assert_eq!(error.code(), "busy");
        drop(held);
        drop(waiting);
        assert!(passwords.verify(None, String::new()).await.is_ok(), "room again");
    }

    #[test]
    fn passwords_are_bounded_by_characters_alone() {
        for good in ["aaaaaaaaaaaa", "пароль пароль", &"x".repeat(1024)] {
            acceptable(good).unwrap();
        }
        for bad in ["", "short", "elevenchars", &"x".repeat(1025)] {
            acceptable(bad).unwrap_err();
        }
        assert_eq!(Passwords::generate().chars().count(), 24);
        assert_ne!(Passwords::generate(), Passwords::generate());
    }
}
