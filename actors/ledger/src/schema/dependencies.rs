//! The tables of `0011_topology`. Kept equal to `migrations/sqlite`; a test compares.

diesel::table! {
    topology (id) {
        id -> Integer,
        revision -> BigInt,
    }
}

diesel::table! {
    topology_component (name) {
        name -> Text,
        title -> Nullable<Text>,
        owner -> Nullable<Text>,
    }
}

diesel::table! {
    topology_edge (dependent, dependency) {
        dependent -> Text,
        dependency -> Text,
    }
}
