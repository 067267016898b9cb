//! The tables of `0005_actions` as Diesel sees them.

diesel::table! {
    approval (num) {
        num -> BigInt,
        id -> Text,
        incident -> Text,
        action -> Text,
        title -> Text,
        risk -> Text,
        params -> Text,
        plan -> Binary,
        digest -> Binary,
        preview -> Text,
        reasoning -> Text,
        proposer -> Text,
        by_person -> Bool,
        owner -> Nullable<Text>,
        status -> Text,
        clauses -> Text,
        created_at -> BigInt,
        approve_by -> BigInt,
        execute_by -> Nullable<BigInt>,
        closed -> Nullable<Text>,
        boot -> Nullable<Text>,
        elapsed_ms -> Nullable<BigInt>,
        execution -> Nullable<Text>,
    }
}

diesel::table! {
    approval_vote (approval, user_name) {
        approval -> BigInt,
        user_name -> Text,
        at -> BigInt,
        digest -> Binary,
        reason -> Text,
    }
}

diesel::table! {
    approval_token (jti) {
        jti -> Text,
        approval -> BigInt,
        hash -> Binary,
        issued_to -> Text,
        epoch -> Text,
        issued_at -> BigInt,
        expires_at -> BigInt,
        state -> Text,
        closed_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    execution (num) {
        num -> BigInt,
        id -> Text,
        approval -> BigInt,
        approval_id -> Text,
        approval_jti -> Text,
        status -> Text,
        reason -> Nullable<Text>,
        exit_code -> Nullable<Integer>,
        stdout -> Text,
        stderr -> Text,
        truncated -> Bool,
        started_at -> BigInt,
        finished_at -> Nullable<BigInt>,
        boot -> Text,
        containment -> Nullable<Text>,
        sandbox -> Nullable<Text>,
        verified -> Nullable<Bool>,
    }
}

diesel::table! {
    target_lock (target) {
        target -> Text,
        execution -> Text,
    }
}

diesel::table! {
    kill_switch (id) {
        id -> Integer,
        engaged -> Bool,
        who -> Nullable<Text>,
        at -> Nullable<BigInt>,
        reason -> Nullable<Text>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(approval, approval_vote);
