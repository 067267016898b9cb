//! Drawing series as SVG: shapes with plain attributes, and texts that are escaped. No style, no script, no reference.

use opspilot_kernel::time::Timestamp;

use crate::plain;

const WIDTH: f64 = 720.0;
/// Of one series, with its title and its times.
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 28.0;
/// Characters of a name that are shown.
const MOST_CHARS: usize = 80;

/// One measured value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    /// Milliseconds.
    pub(super) at: i64,
    /// Finite, like the band.
    pub(super) value: f64,
    /// What was expected there.
    pub(super) band: Option<(f64, f64)>,
}

/// The values of one name and source, in the order of time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) source: String,
    pub(super) name: String,
    pub(super) points: Vec<Point>,
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in plain::stripped(text).chars().take(MOST_CHARS) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // not allowed in XML, however it is written
            '\u{fffe}' | '\u{ffff}' => {}
            c => out.push(c),
        }
    }
    out
}

/// Where a value lies between two others, from 0 to 1; in the middle, where they are the same.
fn between(low: f64, high: f64, value: f64) -> f64 {
    // halved, so that the span of the greatest numbers is one itself
    let span = high / 2.0 - low / 2.0;
    if span > 0.0 { ((value / 2.0 - low / 2.0) / span).clamp(0.0, 1.0) } else { 0.5 }
}

/// A time as a number to draw with: exact enough for that.
fn number(millis: i64) -> f64 {
    Timestamp::from_millis(millis).since(Timestamp::ZERO).as_secs_f64()
}

fn shown(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) { format!("{value:.2e}") } else { format!("{}", (value * 1e3).round() / 1e3) }
}

/// The picture. `beyond` series more are not drawn.
pub(super) fn picture(all: &[Series], beyond: usize) -> String {
    let height = HEIGHT * f64::from(u32::try_from(all.len()).unwrap_or(0)) + if beyond > 0 { 24.0 } else { 0.0 };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>Measured values, with what was expected</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let mut y = 0.0;
    for series in all {
        panel(&mut out, series, y);
        y += HEIGHT;
    }
    if beyond > 0 {
        text(&mut out, LEFT, y + 16.0, "start", "#57606a", &format!("{beyond} more series"));
    }
    out.push_str("</svg>\n");
    out
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, fill: &str, said: &str) {
    out.push_str(&format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{fill}\">{}</text>\n", escaped(said)));
}

fn panel(out: &mut String, series: &Series, top: f64) {
    let values = series.points.iter().flat_map(|point| {
        let (low, high) = point.band.unwrap_or((point.value, point.value));
        [point.value, low, high]
    });
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    let (first, last) = match (series.points.first(), series.points.last()) {
        (Some(first), Some(last)) => (first.at, last.at),
        _ => return,
    };
    let (floor, ceiling) = (top + HEIGHT - BOTTOM, top + TOP);
    let x = |at: i64| LEFT + (WIDTH - LEFT - RIGHT) * between(number(first), number(last), number(at));
    let y = |value: f64| floor - (floor - ceiling) * between(low, high, value);
    text(out, LEFT, top + 16.0, "start", "#1f2328", &format!("{} · {}", series.name, series.source));
    for value in [low, high] {
        let line = y(value);
        out.push_str(&format!("<line x1=\"{LEFT}\" y1=\"{line:.1}\" x2=\"{:.1}\" y2=\"{line:.1}\" stroke=\"#d0d7de\"/>\n", WIDTH - RIGHT));
        text(out, LEFT - 6.0, line + 4.0, "end", "#57606a", &shown(value));
    }
    // each run of values that something was expected of is one area
    for run in series.points.split(|point| point.band.is_none()).filter(|run| !run.is_empty()) {
        let ends = run.iter().filter_map(|point| Some((x(point.at), point.band?)));
        let upper = ends.clone().map(|(x, (_, high))| format!("{x:.1},{:.1}", y(high)));
        let lower = ends.rev().map(|(x, (low, _))| format!("{x:.1},{:.1}", y(low)));
        let corners = upper.chain(lower).collect::<Vec<_>>().join(" ");
        out.push_str(&format!(
            "<polygon points=\"{corners}\" fill=\"#2da44e\" fill-opacity=\"0.18\" stroke=\"#2da44e\" stroke-opacity=\"0.5\"/>\n"
        ));
    }
    let line = series.points.iter().map(|point| format!("{:.1},{:.1}", x(point.at), y(point.value))).collect::<Vec<_>>().join(" ");
    out.push_str(&format!("<polyline points=\"{line}\" fill=\"none\" stroke=\"#0969da\" stroke-width=\"1.5\"/>\n"));
    for point in &series.points {
        let odd = point.band.is_some_and(|(low, high)| point.value < low || point.value > high);
        let (fill, radius) = if odd { ("#cf222e", 3.5) } else { ("#0969da", 2.5) };
        out.push_str(&format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\" fill=\"{fill}\"/>\n", x(point.at), y(point.value)));
    }
    let below = top + HEIGHT - 8.0;
    text(out, LEFT, below, "start", "#57606a", &Timestamp::from_millis(first).to_string());
    if last != first {
        text(out, WIDTH - RIGHT, below, "end", "#57606a", &Timestamp::from_millis(last).to_string());
    }
}
