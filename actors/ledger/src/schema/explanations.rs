//! The tables of `0007_explanations`. Kept equal to `migrations/sqlite`; a test compares.

diesel::table! {
    explanation (incident) {
        incident -> BigInt,
        basis -> BigInt,
        times -> BigInt,
        found -> BigInt,
        body -> Text,
        similar -> Text,
        evidence -> Text,
    }
}

use super::incidents::incident;

diesel::allow_tables_to_appear_in_same_query!(explanation, incident);
