//! The tables of `0004_audit_tree`. Kept equal to `migrations/sqlite`; a test compares.

diesel::table! {
    audit_node (level, idx) {
        level -> Integer,
        idx -> BigInt,
        hash -> Binary,
    }
}

diesel::table! {
    audit_checkpoint (size) {
        size -> BigInt,
        root -> Binary,
        at -> BigInt,
        note -> Nullable<Text>,
    }
}
