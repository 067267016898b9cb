//! What is said of an objective.

use std::time::Duration;

use opspilot_kernel::time::Timestamp;

use super::objective::{Burn, Objective};
use crate::threshold::say::{cut, short, words};

impl Objective {
    /// Title and description: how fast over which windows, how much of the budget is spent, and how long the rest lasts.
    pub(super) fn words(&self, burns: &[&Burn], end: Timestamp) -> (String, String) {
        let slo = &self.slo;
        // the fastest says most
        let fastest = burns.iter().max_by(|one, other| one.short.total_cmp(&other.short));
        let Some((burn, window)) = fastest.and_then(|burn| Some((burn, slo.windows.get(burn.window)?))) else {
            return (slo.id.clone(), slo.description.clone());
        };
        let title = format!(
            "{}: the error budget burns {} times too fast over {} and {} times over {} (limit {})",
            slo.id,
            short(burn.long),
            window.long,
            short(burn.short),
            window.short,
            short(window.burn)
        );
        let told = if slo.ratio.is_some() { "values of the ratio" } else { "events" };
        let mut text = if slo.description.is_empty() { String::new() } else { format!("{}. ", slo.description.trim_end_matches('.')) };
        text.push_str(&format!(
            "{} % of {} {told} within {} are errors, at an objective of {} %; ",
            short(burn.ratio * 100.0),
            short(burn.events.round()),
            window.long,
            slo.objective
        ));
        let spent = self.spent(end);
        text.push_str(&format!("{} % of the budget of {} is spent", short(spent * 100.0), slo.period));
        let left = (1.0 - spent).max(0.0) * slo.period.0.as_secs_f64() / burn.short;
        if spent < 1.0
            && let Ok(left) = Duration::try_from_secs_f64(left)
        {
            text.push_str(&format!(", and at the rate of the last {} the rest lasts {}", window.short, words(left)));
        }
        (cut(&title), crate::evidence::cut(&text, crate::template::DESCRIPTION_BYTES).to_owned())
    }

    /// Why an alert of the windows `by` is over.
    pub(super) fn clear_words(&self, by: &[usize], burns: &[Burn]) -> String {
        let of = |burn: &Burn| {
            let window = self.slo.windows.get(burn.window).filter(|_| by.contains(&burn.window))?;
            Some(format!("{} over {} (limit {})", short(burn.short), window.short, short(window.burn)))
        };
        let rates: Vec<String> = burns.iter().filter_map(of).collect();
        format!("the error budget burns slowly enough again: {}", rates.join(", "))
    }
}
