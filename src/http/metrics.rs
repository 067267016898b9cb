//! `GET /api/metrics`: everything that is registered, what the process is using, and what the ledger holds.

use std::time::Duration;

use actix_web::{HttpResponse, body::BoxBody, dev::ServiceResponse, web};
use prometheus::{
    Encoder as _, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder, proto::MetricFamily,
};

use super::{
    error::{ApiError, ApiResult},
    guard::{Guard, Viewer},
    shell::method_name,
    state::AppState,
};

/// What the server counts of itself.
#[derive(Debug)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl HttpMetrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> Result<HttpMetrics, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("opspilot_http_requests_total", "Requests that were answered, by method, route and status."),
            &["method", "route", "status"],
        )?;
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
        let opts = HistogramOpts::new("opspilot_http_request_duration_seconds", "Time from the head of a request to its answer, by route.");
        let seconds = HistogramVec::new(opts.buckets(buckets), &["route"])?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(HttpMetrics { requests, seconds })
    }

    /// Counts an answer.
    pub(super) fn answered(&self, answer: &ServiceResponse<BoxBody>, took: Duration) {
        // the pattern, not the path: what clients send never becomes a label
        let route = answer.request().match_pattern().unwrap_or_else(|| "none".to_owned());
        let method = method_name(answer.request().method());
        self.requests.with_label_values(&[method, &route, answer.status().as_str()]).inc();
        self.seconds.with_label_values(&[&route]).observe(took.as_secs_f64());
    }
}

fn gauge(families: &mut Vec<MetricFamily>, name: &str, help: &str, value: f64) -> Result<(), prometheus::Error> {
    use prometheus::core::Collector as _;
    let gauge = Gauge::new(name, help)?;
    gauge.set(value);
    families.extend(gauge.collect());
    Ok(())
}

fn counter(families: &mut Vec<MetricFamily>, name: &str, help: &str, value: f64) -> Result<(), prometheus::Error> {
    use prometheus::core::Collector as _;
    let counter = prometheus::Counter::new(name, help)?;
    counter.inc_by(value);
    families.extend(counter.collect());
    Ok(())
}

fn float(number: u64) -> f64 {
    // exact up to 2^53, and as near as a metric can be beyond
    u32::try_from(number >> 32).map_or(0.0, |high| f64::from(high) * 4_294_967_296.0)
        + u32::try_from(number & 0xffff_ffff).map_or(0.0, f64::from)
}

/// What the process is using, under the names every Prometheus client library gives it.
fn process(families: &mut Vec<MetricFamily>) -> Result<(), prometheus::Error> {
    let Ok(me) = procfs::process::Process::myself() else { return Ok(()) };
    let ticks = float(procfs::ticks_per_second());
    if let Ok(stat) = me.stat() {
        let cpu = (float(stat.utime) + float(stat.stime)) / ticks;
        counter(families, "process_cpu_seconds_total", "Processor time used, user and system.", cpu)?;
        gauge(families, "process_virtual_memory_bytes", "Virtual memory.", float(stat.vsize))?;
        gauge(families, "process_resident_memory_bytes", "Resident memory.", float(stat.rss) * float(procfs::page_size()))?;
        gauge(families, "process_threads", "Threads.", float(u64::try_from(stat.num_threads).unwrap_or(0)))?;
        if let Ok(boot) = procfs::boot_time_secs() {
            gauge(
                families,
                "process_start_time_seconds",
                "Start of the process, in seconds since 1970.",
                float(boot) + float(stat.starttime) / ticks,
            )?;
        }
    }
    if let Ok(open) = me.fd_count() {
        gauge(families, "process_open_fds", "Open file descriptors.", float(u64::try_from(open).unwrap_or(u64::MAX)))?;
    }
    if let Ok(limits) = me.limits()
        && let procfs::process::LimitValue::Value(most) = limits.max_open_files.soft_limit
    {
        gauge(families, "process_max_fds", "The most file descriptors that may be open.", float(most))?;
    }
    Ok(())
}

async fn collect(state: &AppState) -> ApiResult<Vec<MetricFamily>> {
    use prometheus::core::Collector as _;
    let mut families = state.registry.gather();
    let named: std::collections::HashSet<String> = families.iter().map(|family| family.name().to_owned()).collect();
    let has = |name: &str| named.contains(name);

    process(&mut families).map_err(ApiError::internal)?;
    if !has("opspilot_module_up") {
        let up = GaugeVec::new(
            Opts::new("opspilot_module_up", "Whether a module works (1), or is restarting, failed or disabled (0)."),
            &["module"],
        )
        .map_err(ApiError::internal)?;
        for module in state.control.modules() {
            use opspilot_kernel::module::ModuleStatus::{Degraded, Healthy};
            let value = if matches!(module.status, Healthy | Degraded) { 1.0 } else { 0.0 };
            up.with_label_values(&[module.id.as_str()]).set(value);
        }
        families.extend(up.collect());
    }
    gauge(
        &mut families,
        "opspilot_http_rate_limit_clients",
        "Clients whose requests are counted.",
        float(u64::try_from(state.limiter.clients()).unwrap_or(0)),
    )
    .map_err(ApiError::internal)?;
    families.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(families)
}

/// Everything that is measured, as Prometheus reads it.
#[utoipa::path(get, path = "/api/metrics", tag = "operations", responses(
    (status = 200, description = "Prometheus text", content_type = "text/plain", body = String),
))]
pub async fn get(_caller: Guard<Viewer>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let families = collect(&state).await?;
    let mut text = Vec::with_capacity(32 << 10);
    TextEncoder::new().encode(&families, &mut text).map_err(ApiError::internal)?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}
