//! The tables of `0002_incidents` and `0013_incident_store` as Diesel sees them.

diesel::table! {
    alert (num) {
        num -> BigInt,
        id -> Text,
        claim -> Text,
        fingerprint -> BigInt,
        status -> Text,
        severity -> Text,
        source -> Text,
        name -> Text,
        detected_by -> Text,
        title -> Text,
        description -> Text,
        labels -> Text,
        occurrences -> BigInt,
        first_seen_at -> BigInt,
        last_seen_at -> BigInt,
        last_logged_at -> BigInt,
        resolved_at -> Nullable<BigInt>,
        resolved_logged_at -> Nullable<BigInt>,
        resolved_by -> Nullable<Text>,
        suppressed_by -> Nullable<Text>,
        incident -> Nullable<Text>,
        aside -> Nullable<Text>,
    }
}

diesel::table! {
    incident (num) {
        num -> BigInt,
        id -> Text,
        rev -> BigInt,
        title -> Text,
        description -> Text,
        severity -> Text,
        status -> Text,
        detected_by -> Text,
        rule -> Text,
        source -> Text,
        labels -> Text,
        occurrences -> BigInt,
        opened_at -> BigInt,
        last_seen_at -> BigInt,
        acknowledged_at -> Nullable<BigInt>,
        acknowledged_by -> Nullable<Text>,
        assignee -> Nullable<Text>,
        snoozed_until -> Nullable<BigInt>,
        resolved_at -> Nullable<BigInt>,
        resolution -> Nullable<Text>,
        quiet_at -> Nullable<BigInt>,
        due_at -> Nullable<BigInt>,
        alert_count -> BigInt,
        firing -> BigInt,
        evidence_count -> BigInt,
        evidence_beyond -> BigInt,
        timeline_count -> BigInt,
        timeline_beyond -> BigInt,
        merged_into -> Nullable<Text>,
        look_at -> Nullable<BigInt>,
        key_count -> BigInt,
        pinned -> Bool,
    }
}

diesel::table! {
    incident_course (num) {
        num -> BigInt,
        recurrence_of -> Nullable<Text>,
        recurrence -> BigInt,
        first_acknowledged_at -> Nullable<BigInt>,
        reopened -> BigInt,
    }
}

diesel::table! {
    incident_words (num) {
        num -> BigInt,
        full -> Bool,
        words -> Text,
    }
}

diesel::table! {
    incident_fingerprint (fingerprint, num) {
        fingerprint -> BigInt,
        num -> BigInt,
        incident -> Text,
        open -> Bool,
    }
}

diesel::table! {
    evidence (incident, n) {
        incident -> BigInt,
        n -> BigInt,
        alert -> Text,
        body -> Text,
    }
}

diesel::table! {
    timeline (incident, n) {
        incident -> BigInt,
        n -> BigInt,
        at -> BigInt,
        kind -> Text,
        actor -> Text,
        text -> Text,
    }
}

diesel::table! {
    decision (num) {
        num -> BigInt,
        first_seq -> BigInt,
        last_seq -> BigInt,
        times -> BigInt,
        first_at -> BigInt,
        last_at -> BigInt,
        stage -> Text,
        alert -> Nullable<Text>,
        incident -> Nullable<Text>,
        outcome -> Text,
        repeats -> Bool,
        text -> Text,
        inputs -> Text,
    }
}

diesel::allow_tables_to_appear_in_same_query!(alert, incident, incident_fingerprint, evidence, timeline, decision);
