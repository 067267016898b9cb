//! What a follower is told and asked.

use actix::prelude::*;
use opspilot_kernel::{
    ids::{DeadLetterId, Seq},
    lifecycle::{Drain, Heartbeat, Pulse},
};
use tokio::sync::oneshot;

use super::{Change, Follower, Make};
use crate::{Consumer, Entries, TallyCounts};

/// "Go on with consumers made like this": answered when the change is made, between two commits.
#[derive(Message)]
#[rtype(result = "Result<(), RequeueError>")]
pub struct Reconfigure<C: 'static>(pub Make<C>);

impl<C> Reconfigure<C> {
    /// Consumers are made by `make` from now on. The stored snapshots are handed to the new one.
    pub fn new(make: impl Fn() -> C + Send + 'static) -> Reconfigure<C> {
        Reconfigure(Box::new(make))
    }
}

/// "Try this dead letter again": one that is marked for it in the ledger.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), RequeueError>")]
pub struct Requeue(pub DeadLetterId);

/// Why a dead letter stays one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequeueError {
    /// This module has no such dead letter that is marked to be tried again.
    #[error("there is no such dead letter of this module to be tried again")]
    Unknown,
    /// The follower or its ledger is not available just now; it will be tried as soon as it is.
    #[error("not available just now")]
    Unavailable,
    /// It fails again.
    #[error("it fails again: {0}")]
    FailsAgain(String),
}

/// "How far are you?"
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "FollowerStatus")]
pub struct Status;

/// How far a follower is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Everything up to here is consumed.
    pub position: Seq,
    /// What is stored stands here.
    pub cursor: Seq,
    /// The last number of the log.
    pub head: Seq,
    /// Whether a range is being taken apart.
    pub isolating: bool,
    /// What became of what it read.
    pub tally: TallyCounts,
}

impl<C: Consumer> Handler<Reconfigure<C>> for Follower<C> {
    type Result = ResponseFuture<Result<(), RequeueError>>;

    fn handle(&mut self, Reconfigure(make): Reconfigure<C>, ctx: &mut Context<Self>) -> Self::Result {
        let (done, wait) = oneshot::channel();
        self.changes.push(Change::Consumer(make, done));
        self.proceed(ctx);
        Box::pin(async move { wait.await.map_err(|_| RequeueError::Unavailable) })
    }
}

impl<C: Consumer> Handler<Requeue> for Follower<C> {
    type Result = ResponseFuture<Result<(), RequeueError>>;

    fn handle(&mut self, Requeue(id): Requeue, ctx: &mut Context<Self>) -> Self::Result {
        let (done, wait) = oneshot::channel();
        self.changes.push(Change::Letter(id, done));
        self.proceed(ctx);
        Box::pin(async move { wait.await.unwrap_or(Err(RequeueError::Unavailable)) })
    }
}

impl<C: Consumer> Handler<Status> for Follower<C> {
    type Result = MessageResult<Status>;

    fn handle(&mut self, _: Status, _: &mut Context<Self>) -> MessageResult<Status> {
        MessageResult(self.status())
    }
}

impl<C: Consumer> Handler<Heartbeat> for Follower<C> {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        let behind = self.state.as_ref().map_or(0, |state| C::Entry::head(&self.deps.ledger).saturating_sub(state.position));
        let trouble = self.trouble.clone().or_else(|| self.state.as_ref().and_then(|state| state.consumer.trouble()));
        MessageResult(Pulse { queue: usize::try_from(behind).unwrap_or(usize::MAX), trouble })
    }
}

impl<C: Consumer> Handler<Drain> for Follower<C> {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, ctx: &mut Context<Self>) -> ResponseFuture<()> {
        let (done, wait) = oneshot::channel();
        self.drains.push(done);
        self.proceed(ctx);
        Box::pin(async move {
            if wait.await.is_err() {
                // the actor failed meanwhile: what is stored is all there is
            }
        })
    }
}
