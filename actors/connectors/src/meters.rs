//! Metrics that survive a restart of their module.

use prometheus::{Registry, core::Collector};

/// Shows a metric in the registry, in place of the one that an earlier start of the module left there.
pub(crate) fn show<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: Result<C, prometheus::Error>,
) -> Result<C, prometheus::Error> {
    let metric = metric?;
    // An error only says that there was none.
    drop(registry.unregister(Box::new(metric.clone())));
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
