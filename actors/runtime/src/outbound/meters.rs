//! What is shown of each target. Targets are named by the configuration, never by a URL.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::OutboundError;

#[derive(Debug, Clone)]
pub(super) struct Meters {
    calls: IntCounterVec,
    repeats: IntCounterVec,
    open: IntGaugeVec,
    seconds: HistogramVec,
}

impl Meters {
    pub(super) fn register(registry: &Registry) -> Result<Meters, prometheus::Error> {
        let meters = Meters {
            calls: IntCounterVec::new(
                Opts::new("opspilot_outbound_calls_total", "Outgoing calls, by how they ended"),
                &["target", "outcome"],
            )?,
            repeats: IntCounterVec::new(Opts::new("opspilot_outbound_repeats_total", "Outgoing calls that were repeated"), &["target"])?,
            open: IntGaugeVec::new(
                Opts::new("opspilot_outbound_breaker_open", "1 while the target is not called because it kept failing"),
                &["target"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new("opspilot_outbound_seconds", "How long outgoing calls took, repetitions and waits included")
                    .buckets(vec![0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0]),
                &["target"],
            )?,
        };
        registry.register(Box::new(meters.calls.clone()))?;
        registry.register(Box::new(meters.repeats.clone()))?;
        registry.register(Box::new(meters.open.clone()))?;
        registry.register(Box::new(meters.seconds.clone()))?;
        Ok(meters)
    }

    pub(super) fn ended(&self, target: &str, outcome: Result<u16, &OutboundError>, seconds: f64) {
        let outcome = match outcome {
            Ok(200..=299) => "ok",
            Ok(500..) => "server_error",
            Ok(_) => "declined",
            Err(error) => error.code(),
        };
        self.calls.with_label_values(&[target, outcome]).inc();
        self.seconds.with_label_values(&[target]).observe(seconds);
    }

    pub(super) fn repeated(&self, target: &str) {
        self.repeats.with_label_values(&[target]).inc();
    }

    pub(super) fn breaker(&self, target: &str, is_open: bool) {
        self.open.with_label_values(&[target]).set(i64::from(is_open));
    }
}
