//! What was measured around an incident, as a picture: each series over time, with the band that was expected of it.

mod draw;

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use opspilot_kernel::{alert::Observation, ids::IncidentId};
use opspilot_ledger::Evidence;

use self::draw::{Point, Series};
use super::{
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Guard, Viewer},
    state::AppState,
};

/// Series that are drawn, those with the most points; the others are counted.
const MOST_SERIES: usize = 6;

/// The measured values among some evidence, by source and name; the series with the most first.
fn series(evidence: &[Evidence]) -> Vec<Series> {
    let mut found: BTreeMap<(&str, &str), Vec<Point>> = BTreeMap::new();
    for piece in evidence {
        if let Observation::Metric { at, source, name, value, expected } = &piece.observation
            && value.is_finite()
        {
            let band = expected.filter(|band| band.low.is_finite() && band.high.is_finite() && band.low <= band.high);
            let point = Point { at: at.millis(), value: *value, band: band.map(|band| (band.low, band.high)) };
            found.entry((source, name)).or_default().push(point);
        }
    }
    let mut all: Vec<Series> = found
        .into_iter()
        .map(|((source, name), mut points)| {
            points.sort_by_key(|point| point.at);
            Series { source: source.to_owned(), name: name.to_owned(), points }
        })
        .collect();
    all.sort_by_key(|series| std::cmp::Reverse(series.points.len()));
    all
}

/// What was measured around an incident, with what was expected, as a picture.
#[utoipa::path(get, path = "/api/incidents/{id}/evidence.svg", tag = "incidents", params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The picture", body = String, content_type = "image/svg+xml"),
    (status = 404, description = "No such incident, or nothing was measured", body = ProblemBody),
))]
pub async fn get(_caller: Guard<Viewer>, id: web::Path<String>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let id = IncidentId::given(id.into_inner());
    let evidence = state.ledger.read(move |reader| reader.incident_evidence(&id)).await?;
    let series = series(&evidence);
    if series.is_empty() {
        return Err(ApiError::not_found("measured value among the evidence of this incident"));
    }
    let beyond = series.len().saturating_sub(MOST_SERIES);
    let shown = series.get(..MOST_SERIES).unwrap_or(&series);
    Ok(HttpResponse::Ok().content_type("image/svg+xml").body(draw::picture(shown, beyond)))
}

#[cfg(test)]
mod tests {
    use opspilot_kernel::{alert::Band, time::Timestamp};

    use super::*;

    fn metric(at: i64, name: &str, value: f64, expected: Option<(f64, f64)>) -> Evidence {
        let expected = expected.map(|(low, high)| Band { low, high });
        let (at, source) = (Timestamp::from_millis(at), "shop".to_owned());
        Evidence { id: String::new(), observation: Observation::Metric { at, source, name: name.to_owned(), value, expected } }
    }

    #[test]
    fn only_what_was_measured_is_drawn_in_the_order_of_time() {
        let log = Observation::Log { at: Timestamp::ZERO, source: "shop".to_owned(), text: "7".to_owned() };
        assert_eq!(series(&[Evidence { id: String::new(), observation: log }]).len(), 0);
        let found = series(&[
            metric(2, "b", f64::NAN, None),
            metric(2, "b", 1.0, Some((2.0, 1.0))),
            metric(3, "a", 2.0, Some((0.0, f64::INFINITY))),
            metric(1, "a", 1.0, Some((0.0, 1.0))),
        ]);
        let told: Vec<_> = found.iter().map(|series| (series.name.as_str(), series.points.len())).collect();
        assert_eq!(told, [("a", 2), ("b", 1)]);
        assert_eq!(found[0].points.iter().map(|point| (point.at, point.band)).collect::<Vec<_>>(), [(1, Some((0.0, 1.0))), (3, None)]);
    }

    #[test]
    fn e3_a_name_cannot_become_part_of_the_picture() {
        let name = "</text><script xmlns='a'>alert(1)</script>&\"'\u{0}\u{202e}]]>";
        let picture = draw::picture(&series(&[metric(1, name, 1.0, None)]), 0);
        assert!(!picture.contains("<script") && !picture.contains(['\u{0}', '\u{202e}']), "{picture}");
        assert!(picture.contains("&lt;/text&gt;&lt;script xmlns=&#39;a&#39;&gt;alert(1)"), "{picture}");
    }

    #[test]
    fn whatever_the_values_are_every_number_of_the_picture_is_finite() {
        for values in [[0.0, 0.0], [f64::MAX, f64::MIN], [f64::MIN_POSITIVE, 0.0], [1e300, -1e300], [5.0, 5.0]] {
            let points: Vec<_> =
                [0, 4_000_000_000_000].into_iter().zip(values).map(|(at, value)| metric(at, "a", value, Some((value, value)))).collect();
            for points in [&points[..], &points[..1]] {
                let picture = draw::picture(&series(points), 3);
                assert!(!picture.contains("NaN") && !picture.contains("inf"), "{values:?}: {picture}");
                assert!(picture.contains("3 more series"));
            }
        }
    }
}
