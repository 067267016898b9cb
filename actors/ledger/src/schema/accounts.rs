//! The tables of `0003_accounts` as Diesel sees them.

diesel::table! {
    user_account (name) {
        name -> Text,
        role -> Text,
        groups -> Text,
        password_hash -> Text,
        disabled -> Bool,
        created_at -> BigInt,
        changed_at -> BigInt,
    }
}

diesel::table! {
    session (id) {
        id -> Text,
        user_name -> Text,
        opened_at -> BigInt,
        seen_at -> BigInt,
        expires_at -> BigInt,
    }
}

diesel::table! {
    api_key (id) {
        id -> Text,
        name -> Text,
        owner -> Text,
        role -> Text,
        hash -> Binary,
        created_at -> BigInt,
        expires_at -> Nullable<BigInt>,
        used_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    idempotency (num) {
        num -> BigInt,
        scope -> Text,
        key -> Text,
        fingerprint -> Binary,
        status -> Integer,
        body -> Text,
        at -> BigInt,
    }
}

diesel::joinable!(session -> user_account (user_name));
diesel::joinable!(api_key -> user_account (owner));
diesel::allow_tables_to_appear_in_same_query!(user_account, session, api_key);
