//! The first users: without them nobody could log in.

use std::path::Path;

use opspilot_kernel::principal::{Actor, Role};
use opspilot_ledger::{Ledger, NewUser, Priority, UserRecord};
use rand::Rng;
use slog::{Logger, info, warn};

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
pub(super) async fn first_users(ledger: &Ledger, dir: &Path, log: &Logger) -> Result<Vec<FirstPassword>, TopologyError> {
    let users = ledger.read(|reader| reader.users()).await?;
    if !users.is_empty() {
        if let Some(command) = way_back(&users, dir) {
            warn!(log, "there is no active admin; stop the service and make one"; "command" => command);
        }
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

/// What to run if nobody can manage the accounts.
fn way_back(users: &[UserRecord], dir: &Path) -> Option<String> {
    let mut admins = users.iter().filter(|user| user.role == Role::Admin).peekable();
    let dir = dir.display();
    match admins.peek().map(|admin| admin.name.clone()) {
        _ if admins.any(|admin| !admin.disabled) => None,
        Some(name) => Some(format!("opspilot user enable {name} --data {dir}")),
        None if users.iter().any(|user| user.name == "admin") => Some(format!("opspilot user add chief --role admin --data {dir}")),
        None => Some(format!("opspilot user add admin --role admin --data {dir}")),
    }
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
    fn a_service_that_nobody_can_manage_names_the_way_back() {
        let at = opspilot_kernel::time::Timestamp::default();
        let user = |name: &str, role, disabled| UserRecord {
            name: name.to_owned(),
            role,
            groups: Vec::new(),
            disabled,
            created_at: at,
            changed_at: at,
        };
        let said = |users: &[UserRecord]| way_back(users, Path::new("d")).unwrap_or_default();
        let bob = user("bob", Role::Viewer, false);
        assert_eq!(said(&[user("admin", Role::Admin, false), bob.clone()]), "");
        assert_eq!(said(&[user("a", Role::Admin, true), user("b", Role::Admin, false)]), "");
        assert_eq!(said(&[user("a", Role::Admin, true), bob.clone()]), "opspilot user enable a --data d");
        assert_eq!(said(&[bob]), "opspilot user add admin --role admin --data d");
    }

    #[test]
    fn passwords_are_long_enough_and_differ() {
        let (one, two) = (random_password(), random_password());
        assert!(passwords::acceptable(&one).is_ok());
        assert_ne!(one, two);
    }
}
