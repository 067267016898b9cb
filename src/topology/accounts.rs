//! The first users: without them nobody could log in.

use opspilot_kernel::principal::{Actor, Role};
use opspilot_ledger::{Ledger, NewUser, Priority};
use rand::Rng;
use slog::{Logger, info};

use super::TopologyError;
use crate::http::auth::passwords::{self, Cost};

/// Names the password of `admin` instead of a random one; then only `admin` is made.
const ADMIN_PASSWORD: &str = "OPSPILOT_ADMIN_PASSWORD";
/// Without characters that are taken for each other.
const ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const LENGTH: usize = 20;

/// A user that was made, with the password that is shown once.
#[derive(Clone)]
pub struct FirstPassword {
    /// The user's name.
    pub user: &'static str,
    /// The password; nothing if it was given.
    pub password: Option<String>,
}

/// Makes the first users if there are none.
pub(super) async fn first_users(ledger: &Ledger, log: &Logger) -> Result<Vec<FirstPassword>, TopologyError> {
    if ledger.read(|reader| reader.has_users()).await? {
        return Ok(Vec::new());
    }
    let given = std::env::var(ADMIN_PASSWORD).ok().filter(|password| !password.is_empty());
    let wanted: Vec<(&'static str, Role, Option<String>)> = match given {
        Some(password) => {
            passwords::acceptable(&password).map_err(|why| TopologyError::Accounts(format!("{ADMIN_PASSWORD}: {why}")))?;
            vec![("admin", Role::Admin, Some(password))]
        }
        None => vec![("admin", Role::Admin, None), ("approver", Role::Operator, None)],
    };
    // hashing is slow on purpose; done side by side it holds the first start up only once
    let hashing: Vec<_> = wanted
        .into_iter()
        .map(|(user, role, given)| {
            tokio::task::spawn_blocking(move || {
                let password = given.clone().unwrap_or_else(random_password);
                let shown = if given.is_some() { None } else { Some(password.clone()) };
                let hash = passwords::hash_blocking(Cost::default(), &password).ok();
                (user, role, hash, shown)
            })
        })
        .collect();
    let mut made = Vec::new();
    for hashed in hashing {
        let (user, role, hash, password) = hashed.await.map_err(|error| TopologyError::Accounts(error.to_string()))?;
        let password_hash = hash.ok_or_else(|| TopologyError::Accounts("a password cannot be hashed".to_owned()))?;
        let account = NewUser { name: user.to_owned(), role, groups: Vec::new(), password_hash };
        ledger.write(Priority::Control, move |tx| tx.user_create(&Actor::System, account)).await?;
        info!(log, "a first user was made"; "user" => user, "role" => role.as_str());
        made.push(FirstPassword { user, password });
    }
    Ok(made)
}

/// A password nobody can guess.
pub(crate) fn random_password() -> String {
    let mut dice = rand::rng();
    (0..LENGTH).map(|_| ALPHABET.get(dice.random_range(0..ALPHABET.len())).copied().map_or('x', char::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_enough_and_differ() {
        let (one, two) = (random_password(), random_password());
        assert!(passwords::acceptable(&one).is_ok());
        assert_ne!(one, two);
    }
}
