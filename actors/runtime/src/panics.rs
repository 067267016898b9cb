//! What is logged of a panic: which actor and where, and the message. Never a payload that is not text.

use std::{any::Any, cell::Cell, panic::PanicHookInfo};

thread_local! {
    /// The actor that has the thread, for the hook.
    static ACTOR: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Runs `work` under the name of an actor, so that the hook can tell whose panic it is.
pub(crate) fn in_actor<T>(actor: &'static str, work: impl FnOnce() -> T) -> T {
    struct Leave(Option<&'static str>);
    impl Drop for Leave {
        fn drop(&mut self) {
            ACTOR.with(|cell| cell.set(self.0));
        }
    }
    let _leave = Leave(ACTOR.with(|cell| cell.replace(Some(actor))));
    work()
}

/// A panic's message, cut at 200 characters; a payload that is not text is not looked at.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&'static str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").chars().take(200).collect()
}

/// Logs every panic of the process instead of printing it. Called once, by the process.
pub fn install_panic_hook(log: slog::Logger) {
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let place = info.location().map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
        let text =
            info.payload().downcast_ref::<&'static str>().copied().or_else(|| info.payload().downcast_ref::<String>().map(String::as_str));
        // how a fault test ends the process at a point: `FAILPOINTS=ledger::before_commit=panic(abort)`
        #[cfg(feature = "failpoints")]
        if text == Some("abort") {
            std::process::abort();
        }
        let text: String = text.unwrap_or("a panic without a message").chars().take(200).collect();
        let actor = ACTOR.try_with(Cell::get).ok().flatten().unwrap_or("none");
        slog::error!(log, "panic"; "actor" => actor, "message" => text, "place" => place);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_is_not_text_is_not_looked_at() {
        let payload: Box<dyn Any + Send> = Box::new(vec!["secret"]);
        assert_eq!(message(&*payload), "a panic without a message");
        let long: Box<dyn Any + Send> = Box::new("x".repeat(1000));
        assert_eq!(message(&*long).len(), 200);
    }

    #[test]
    fn the_actor_that_has_the_thread_is_known_and_forgotten_after_a_panic() {
        let now = || ACTOR.with(Cell::get);
        let caught = std::panic::catch_unwind(|| {
            in_actor("outer", || {
                in_actor("inner", || assert_eq!(now(), Some("inner")));
                assert_eq!(now(), Some("outer"));
                std::panic::resume_unwind(Box::new("told to fail"));
            });
        });
        assert!(caught.is_err());
        assert_eq!(now(), None);
    }
}
