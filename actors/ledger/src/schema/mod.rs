//! The tables as Diesel sees them: one file for each migration directory, kept equal by a test.

mod accounts;
mod actions;
mod audit_tree;
mod core;
mod dependencies;
mod explanations;
mod grouping;
mod held_back;
mod incidents;
mod to_deliver;

pub(crate) use self::{
    accounts::*, actions::*, audit_tree::*, core::*, dependencies::*, explanations::*, grouping::*, held_back::*, incidents::*,
    to_deliver::*,
};
