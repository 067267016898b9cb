//! Named points at which a fault test can stop or kill a delivery. Without the feature they are nothing at all.

/// A point with a name; `fail` decides what happens there.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        ::fail::fail_point!($name);
    };
}
pub(crate) use failpoint;
