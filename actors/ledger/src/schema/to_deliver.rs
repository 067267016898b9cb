//! The tables of `0008_outbox`. Kept equal to `migrations/sqlite`; a test compares.

diesel::table! {
    outbox (num) {
        num -> BigInt,
        channel -> Text,
        key -> Text,
        dedup -> Text,
        first_event -> BigInt,
        last_event -> BigInt,
        subject -> Text,
        body -> Text,
        created_at -> BigInt,
        attempts -> Integer,
        next_at -> BigInt,
        lease_until -> Nullable<BigInt>,
        boot -> Nullable<Text>,
        error -> Nullable<Text>,
    }
}
