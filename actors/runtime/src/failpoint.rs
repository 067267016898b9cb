//! Named points at which a test may make any actor fail. Without the feature `failpoints` there is nothing here.
//!
//! For an actor `detector.regex` there are `actor::detector.regex` (whenever it is given the thread: handlers and
//! whatever else), `actor::detector.regex::started`, `…::future` and `…::timer` (inside it, where the name says).

use actix::{Actor, Context};

/// The point at which an actor is given the thread.
#[cfg(feature = "failpoints")]
pub(crate) fn dispatch(actor: &str) {
    fail::fail_point!(&format!("actor::{actor}"));
}

/// The point at which an actor starts.
#[cfg(feature = "failpoints")]
pub(crate) fn started(actor: &str) {
    fail::fail_point!(&format!("actor::{actor}::started"));
}

/// Plants a future and an interval in the actor, each with its point.
#[cfg(feature = "failpoints")]
pub(crate) fn plant<A: Actor<Context = Context<A>>>(actor: &'static str, ctx: &mut Context<A>) {
    use actix::AsyncContext;

    const EVERY: std::time::Duration = std::time::Duration::from_millis(200);
    let future = async move {
        loop {
            actix::clock::sleep(EVERY).await;
            fail::fail_point!(&format!("actor::{actor}::future"));
        }
    };
    ctx.spawn(actix::fut::wrap_future(future));
    ctx.run_interval(EVERY, move |_, _| fail::fail_point!(&format!("actor::{actor}::timer")));
}

#[cfg(not(feature = "failpoints"))]
pub(crate) fn dispatch(_: &str) {}

#[cfg(not(feature = "failpoints"))]
pub(crate) fn started(_: &str) {}

#[cfg(not(feature = "failpoints"))]
pub(crate) fn plant<A: Actor<Context = Context<A>>>(_: &'static str, _: &mut Context<A>) {}
