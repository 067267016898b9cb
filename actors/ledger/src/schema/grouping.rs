//! The tables of `0009_grouping`, and of `0013_incident_store` what undoes a grouping. Kept equal to `migrations/sqlite`; a test compares.

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

diesel::table! {
    incident_merge (num) {
        num -> BigInt,
        target -> Text,
        at -> BigInt,
        before -> Text,
    }
}

diesel::table! {
    incident_merge_alert (num, alert) {
        num -> BigInt,
        alert -> Text,
    }
}
