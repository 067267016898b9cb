//! The tables of `0009_grouping`. Kept equal to `migrations/sqlite`; a test compares.

diesel::table! {
    incident_key (key, num) {
        key -> Text,
        num -> BigInt,
        incident -> Text,
        at -> BigInt,
        opened -> BigInt,
        counts -> Bool,
        storm -> Bool,
    }
}
