//! Who does something: people, their keys, and the parts of the service.

use serde::{Deserialize, Serialize};

/// What an account may do. `integrator` stands apart: it may ingest and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sends signals; sees nothing else.
    Integrator,
    /// Sees everything but accounts.
    Viewer,
    /// Works on incidents.
    Operator,
    /// Manages accounts, modules and configuration.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::Integrator, Role::Viewer, Role::Operator, Role::Admin];

    /// Whether this role includes what `needed` may do (`viewer < operator < admin`).
    pub fn includes(self, needed: Role) -> bool {
        let rank = |role| match role {
            Role::Integrator => None,
            Role::Viewer => Some(1),
            Role::Operator => Some(2),
            Role::Admin => Some(3),
        };
        match (rank(self), rank(needed)) {
            (Some(own), Some(needed)) => own >= needed,
            _ => self == needed,
        }
    }

    /// Whether this role may send signals.
    pub fn may_ingest(self) -> bool {
        self != Role::Viewer
    }

    /// The role's name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Integrator => "integrator",
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Role, UnknownRole> {
        Role::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

/// The text names no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown role; use integrator, viewer, operator or admin")]
pub struct UnknownRole;

/// Who is answerable for a change; it stands in the audit entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub enum Actor {
    /// A person, by the account's name, and how they came in.
    User {
        /// The account's name.
        id: String,
        /// `session`, `key:<id>` or `cli`.
        via: String,
    },
    /// A part of the service acting on its own.
    Module {
        /// Which part.
        id: String,
    },
    /// The service itself: start, stop, migrations.
    System,
    /// Somebody who did not say who they are, or could not prove it.
    Anonymous {
        /// The network address the attempt came from.
        via: String,
    },
}

impl Actor {
    /// The actor as it is shown and searched: `user:ada`, `module:detector.regex`, `system`.
    pub fn label(&self) -> String {
        match self {
            Actor::User { id, .. } => format!("user:{id}"),
            Actor::Module { id } => format!("module:{id}"),
            Actor::System => "system".to_owned(),
            Actor::Anonymous { .. } => "anonymous".to_owned(),
        }
    }
}
