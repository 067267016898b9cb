//! A module that is one supervised actor, as whoever started it holds it.

use std::any::Any;

use actix::{Actor, Context};
use futures_util::future::BoxFuture;
use opspilot_kernel::module::ModuleId;
use opspilot_runtime::{Handle, Module, Supervisor};

/// Stops the actor; asks it nothing.
pub(crate) struct Running<A: Actor<Context = Context<A>>> {
    id: ModuleId,
    supervisor: Supervisor,
    /// Keeps the way to the actor open.
    _handle: Handle<A>,
}

impl<A: Actor<Context = Context<A>>> Running<A> {
    pub(crate) fn new(id: ModuleId, supervisor: &Supervisor, handle: Handle<A>) -> Running<A> {
        Running { id, supervisor: supervisor.clone(), _handle: handle }
    }
}

impl<A: Actor<Context = Context<A>>> Module for Running<A> {
    fn stop(&self) -> BoxFuture<'static, ()> {
        let (supervisor, id) = (self.supervisor.clone(), self.id);
        Box::pin(async move {
            supervisor.stop(id.as_str()).await;
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
