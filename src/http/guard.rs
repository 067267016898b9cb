//! Who calls, and what they must be: the role a handler needs stands in its signature.
//!
//! ```text
//! async fn list(caller: Guard<Viewer>, …) -> ApiResult<impl Responder>
//! ```
//!
//! The shell has found out who calls before a handler runs; a guard only looks
//! and refuses. It comes first among a handler's parameters, so that nobody
//! learns anything about a body or a query they may not send.

use std::{
    future::{Ready, ready},
    marker::PhantomData,
    ops::Deref,
    sync::Arc,
};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload};
use opspilot_kernel::{
    error::ErrorKind,
    ids::{ApiKeyId, SessionId},
    principal::{Actor, Role},
};

use super::error::ApiError;

/// How a caller proved who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// A session, with the token in a header.
    Session(SessionId),
    /// A session, with the token in the browser's cookie: unsafe methods need proof against forgery.
    Cookie(SessionId),
    /// An API key.
    Key(ApiKeyId),
}

/// Somebody who proved who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The account's name.
    pub user: String,
    /// What they may do; for a key never more than its owner may do.
    pub role: Role,
    /// The groups of the account.
    pub groups: Vec<String>,
    /// How they proved it.
    pub via: Via,
}

impl Principal {
    /// The caller as audit entries name them.
    pub fn actor(&self) -> Actor {
        let via = match &self.via {
            Via::Session(_) | Via::Cookie(_) => "session".to_owned(),
            Via::Key(id) => format!("key:{id}"),
        };
        Actor::User { id: self.user.clone(), via }
    }

    /// The caller's session; none for an API key.
    pub fn session(&self) -> Option<&SessionId> {
        match &self.via {
            Via::Session(id) | Via::Cookie(id) => Some(id),
            Via::Key(_) => None,
        }
    }
}

/// What a handler needs its caller to be.
pub trait Needs: 'static {
    /// The name in the API document (`x-required-role`).
    const NAME: &'static str;
    /// Whether this role will do.
    fn admits(role: Role) -> bool;
}

macro_rules! needs {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $role:ident => $admits:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}
        impl Needs for $name {
            const NAME: &'static str = $text;
            fn admits($role: Role) -> bool {
                $admits
            }
        }
    )*};
}

needs! {
    /// A viewer, operator or admin.
    Viewer = "viewer", role => role.includes(Role::Viewer);
    /// An operator or admin.
    Operator = "operator", role => role.includes(Role::Operator);
    /// An admin.
    Admin = "admin", role => role.includes(Role::Admin);
    /// An integrator, operator or admin: whoever may send signals.
    Ingester = "integrator", role => role.may_ingest();
    /// Anybody who is logged in.
    Anybody = "any", _role => true;
}

/// Proof that the caller is what `N` needs.
#[derive(Debug)]
pub struct Guard<N: Needs> {
    principal: Arc<Principal>,
    needs: PhantomData<fn() -> N>,
}

impl<N: Needs> Guard<N> {
    /// The caller, to be kept beyond the request.
    pub fn principal(&self) -> Arc<Principal> {
        Arc::clone(&self.principal)
    }
}

impl<N: Needs> Deref for Guard<N> {
    type Target = Principal;
    fn deref(&self) -> &Principal {
        &self.principal
    }
}

impl<N: Needs> FromRequest for Guard<N> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(match request.extensions().get::<Arc<Principal>>() {
            None => Err(ApiError::new(ErrorKind::Unauthenticated, "unauthenticated", "log in, or send an API key")),
            Some(principal) if N::admits(principal.role) => Ok(Guard { principal: Arc::clone(principal), needs: PhantomData }),
            Some(_) => Err(ApiError::new(ErrorKind::Forbidden, "forbidden", format!("this needs the role {}", N::NAME))),
        })
    }
}

/// The caller, if they said who they are: for what is public but says more to those who may see it.
#[derive(Debug)]
pub struct Caller(pub Option<Arc<Principal>>);

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Caller(request.extensions().get::<Arc<Principal>>().cloned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_integrator_stands_apart() {
        for role in Role::ALL {
            assert_eq!(Viewer::admits(role), role != Role::Integrator, "{role:?}");
            assert_eq!(Ingester::admits(role), role != Role::Viewer, "{role:?}");
            assert_eq!(Operator::admits(role), matches!(role, Role::Operator | Role::Admin), "{role:?}");
            assert_eq!(Admin::admits(role), role == Role::Admin, "{role:?}");
        }
    }
}
