//! Values that are unusual for their series.

pub mod method;
