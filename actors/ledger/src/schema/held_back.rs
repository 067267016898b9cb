//! The tables of `0010_silence`. Kept equal to `migrations/sqlite`; a test compares.

diesel::table! {
    silence (num) {
        num -> BigInt,
        id -> Text,
        matchers -> Text,
        starts_at -> BigInt,
        ends_at -> BigInt,
        updated_at -> BigInt,
        created_by -> Text,
        account -> Text,
        comment -> Text,
    }
}

diesel::table! {
    suppression (id) {
        id -> BigInt,
        rev -> BigInt,
        until -> BigInt,
        plan -> Text,
        place -> Nullable<Text>,
        again -> Bool,
    }
}

diesel::table! {
    inhibitor (key, both, claim) {
        key -> Text,
        both -> Bool,
        claim -> Text,
        title -> Text,
    }
}
