//! Identifiers: opaque strings with a prefix that says what they name.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A position in one of the ledger's logs. The first entry is 1; 0 is "before everything".
pub type Seq = u64;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What every such id starts with.
            pub const PREFIX: &'static str = $prefix;

            /// The id that follows from `parts`; the same parts give the same id.
            pub fn derived(parts: &[&str]) -> $name {
                $name(format!("{}{}", $prefix, derive(parts)))
            }

            /// An id nobody can guess.
            pub fn random() -> $name {
                $name(format!("{}{}", $prefix, hex::encode(rand::random::<[u8; 10]>())))
            }

            /// The id as a caller wrote it; it may name nothing.
            pub fn given(text: impl Into<String>) -> $name {
                $name(text.into())
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// 80 bits of SHA-256 over the parts, each preceded by its length so that none can run into the next.
fn derive(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    hex::encode(digest.get(..10).unwrap_or_default())
}

id!(
    /// Names an incident; derives from its founding alert.
    IncidentId, "inc_"
);
id!(
    /// Names one episode of an alert; derives from rule, fingerprint and first sequence number.
    AlertId, "alr_"
);
id!(
    /// Names an API key (not the key itself).
    ApiKeyId, "key_"
);
id!(
    /// Names a log-in session.
    SessionId, "ses_"
);
id!(
    /// Names something that was set aside because it could not be processed.
    DeadLetterId, "dlq_"
);
id!(
    /// Names a proposed plan on its way through people's hands.
    ApprovalId, "apr_"
);
id!(
    /// Names the run of an approved plan.
    ExecutionId, "exe_"
);
id!(
    /// Names a silence.
    SilenceId, "sil_"
);
id!(
    /// Names something that must reach the outside, until it did.
    DeliveryId, "dlv_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_repeat_and_do_not_run_together() {
        assert_eq!(AlertId::derived(&["a", "bc"]), AlertId::derived(&["a", "bc"]));
        assert_ne!(AlertId::derived(&["a", "bc"]), AlertId::derived(&["ab", "c"]));
        assert!(IncidentId::derived(&["x"]).as_str().starts_with("inc_"));
    }
}
