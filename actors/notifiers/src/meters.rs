//! What is shown of each channel. They survive a restart of their module.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector};

/// The metrics of every channel, by the id that the configuration gives it.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    deliveries: IntCounterVec,
    pub(crate) waiting: IntGaugeVec,
    pub(crate) oldest: IntGaugeVec,
    pub(crate) up: IntGaugeVec,
    pub(crate) missed: IntCounterVec,
}

fn show<C: Collector + Clone + 'static>(registry: &Registry, metric: Result<C, prometheus::Error>) -> Result<C, prometheus::Error> {
    let metric = metric?;
    // an error only says that there was none
    drop(registry.unregister(Box::new(metric.clone())));
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

impl Meters {
    pub(crate) fn new(registry: &Registry) -> Result<Meters, prometheus::Error> {
        let of_channel = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["channel"]);
        let counted = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        Ok(Meters {
            deliveries: show(
                registry,
                counted(
                    "opspilot_notifier_attempts_total",
                    "Attempts to deliver a notification, by how they ended",
                    &["channel", "outcome"],
                ),
            )?,
            waiting: show(registry, of_channel("opspilot_notifier_waiting", "Notifications that wait to be delivered"))?,
            oldest: show(registry, of_channel("opspilot_notifier_oldest_seconds", "Since when the oldest of them waits"))?,
            up: show(registry, of_channel("opspilot_notifier_up", "1 while the channel takes what it is given"))?,
            missed: show(
                registry,
                counted("opspilot_notifier_gaps_total", "Times events were removed before the channel had read them", &["channel"]),
            )?,
        })
    }

    pub(crate) fn attempt(&self, channel: &str, outcome: &str) {
        self.deliveries.with_label_values(&[channel, outcome]).inc();
    }
}
