//! The modules that live beside the HTTP server, as the registry knows them.

use opspilot_kernel::module::ModuleId;
use opspilot_runtime::{Entry, Module, ModuleContext, ModuleSpec, StartError};

use crate::http::{
    dashboard::{self, DashboardConfig},
    live::{self, LiveConfig},
};

/// The HTTP API. It runs as long as the process does, so it has no switch and no section of its own.
pub(super) const API: ModuleId = ModuleId::new("ui.api");

/// Every module of this category.
pub(super) const MODULES: &[Entry] = &[Entry::of::<Websocket>(), Entry::of::<Dashboard>()];

struct Websocket;

impl ModuleSpec for Websocket {
    const ID: ModuleId = live::ID;
    const SUMMARY: &'static str = live::SUMMARY;
    const ENABLED: bool = true;
    type Config = LiveConfig;

    /// The feed belongs to the server's state, which the context does not hold: [`super::modules::Modules`] starts it.
    fn start(_: &ModuleContext, _: LiveConfig) -> Result<Box<dyn Module>, StartError> {
        Err(StartError::Failed("the HTTP server does not run".to_owned()))
    }
}

struct Dashboard;

impl ModuleSpec for Dashboard {
    const ID: ModuleId = dashboard::ID;
    const SUMMARY: &'static str = dashboard::SUMMARY;
    const ENABLED: bool = true;
    type Config = DashboardConfig;

    /// The page belongs to the server's state as the feed does.
    fn start(_: &ModuleContext, _: DashboardConfig) -> Result<Box<dyn Module>, StartError> {
        Err(StartError::Failed("the HTTP server does not run".to_owned()))
    }
}
