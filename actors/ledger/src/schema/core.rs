//! The tables of `0001_core`. Kept equal to `migrations/sqlite`; a test compares.

diesel::table! {
    signal_block (first_seq) {
        first_seq -> BigInt,
        last_seq -> BigInt,
        count -> Integer,
        kinds -> Integer,
        at_min -> BigInt,
        at_max -> BigInt,
        received_min -> BigInt,
        received_max -> BigInt,
        more_sources -> Bool,
        raw_len -> BigInt,
        stored_len -> BigInt,
        sources -> Text,
        filter -> Binary,
        data -> Binary,
    }
}

diesel::table! {
    claim (id) {
        id -> BigInt,
        at -> BigInt,
        count -> Integer,
        keys -> Binary,
    }
}

diesel::table! {
    alert_log (seq) {
        seq -> BigInt,
        at -> BigInt,
        alert -> Nullable<Text>,
        signal_seq -> Nullable<BigInt>,
        transition -> Nullable<Text>,
        body -> Binary,
    }
}

diesel::table! {
    event (seq) {
        seq -> BigInt,
        at -> BigInt,
        kind -> Text,
        body -> Binary,
    }
}

diesel::table! {
    follower_cursor (module) {
        module -> Text,
        log -> Text,
        seq -> BigInt,
        live -> Bool,
        at -> BigInt,
    }
}

diesel::table! {
    snapshot (module, key) {
        module -> Text,
        key -> Text,
        blob -> Binary,
    }
}

diesel::table! {
    attempt (module, first_seq, last_seq) {
        module -> Text,
        first_seq -> BigInt,
        last_seq -> BigInt,
        count -> Integer,
        at -> BigInt,
    }
}

diesel::table! {
    dead_letter (id) {
        id -> Text,
        module -> Text,
        log -> Text,
        first_seq -> BigInt,
        last_seq -> BigInt,
        payload -> Binary,
        error -> Text,
        attempts -> Integer,
        at -> BigInt,
        requeued_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    audit_leaf (seq) {
        seq -> BigInt,
        leaf -> Binary,
        leaf_hash -> Binary,
    }
}

diesel::table! {
    audit_payload (seq) {
        seq -> BigInt,
        salt -> Binary,
        body -> Binary,
    }
}

diesel::table! {
    audit_head (id) {
        id -> Integer,
        size -> BigInt,
        last_hash -> Binary,
        last_ts -> BigInt,
        root -> Binary,
        frontier -> Binary,
    }
}

diesel::table! {
    meta (name) {
        name -> Text,
        value -> Text,
    }
}

diesel::table! {
    denied (actor, what) {
        actor -> Text,
        what -> Text,
        minute -> BigInt,
        count -> BigInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(audit_leaf, audit_payload);
