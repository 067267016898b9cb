//! `auto`: several views of a series, each judged by its own past.
//!
//! Every point is looked at in [`views`] that are sensitive to different things: a value that is out
//! of place, a leap, a short or a long change of level, a value that is unusual at this hour, noise,
//! and a [`shape`] like none before. Each view has a [`tail`]: the greatest distances it ever saw,
//! which say how rare the present one is. What is rarer than one in ten counts, in powers of ten and
//! to a bound; of views that see the same things only the rarest counts; the sum is the evidence.
//!
//! There is an alarm where the evidence suffices. More is asked for after each alarm, so that a
//! restless series is heard less, and that is forgiven in time; more is asked for the longer a series
//! is known and the more often it has values, because there are more occasions to be wrong.
//!
//! Everything is measured by the past of the same series: shifting or scaling it changes nothing.

mod hours;
mod input;
mod middle;
mod shape;
mod tail;
mod views;

use opspilot_kernel::time::Timestamp;

use self::{
    hours::{Hours, Usual},
    input::Input,
    middle::Middle,
    shape::Shape,
    tail::Tail,
    views::{CHANGE, DAY, LEVEL, LONG, LONGER, ROUGH, Recent, SHORT, VIEWS, Views, WEEK},
};
use super::{
    Alarm, Band, Extent, Judged, Sign, sane,
    settings::{self, Direction, Side},
    wire::{Reader, Writer},
};

/// Views that see the same things.
const ALIKE: [&[usize]; 5] = [&[LEVEL, DAY, ROUGH], &[CHANGE], &[SHORT, WEEK], &[LONG], &[LONGER]];
/// What each view is called.
const SIGNS: [Sign; VIEWS] =
    [Sign::Level, Sign::Leap, Sign::Mean(6), Sign::Mean(24), Sign::Mean(96), Sign::Hour, Sign::Hour, Sign::Restless(24)];
/// Powers of ten that are nothing special.
const USUAL: f32 = 1.0;
/// Powers of ten beyond those that count at most.
const MOST: f32 = 2.7;
/// How much evidence suffices.
const ENOUGH: f32 = 4.9;
/// How much more of it, as a share, after each alarm.
const MORE: f32 = 0.15;
/// In how many points, or in how much time, whichever is longer, that is forgiven.
const FORGIVEN: f64 = 4000.0;
const FORGIVEN_SECONDS: f64 = 24.0 * 86_400.0;
/// How much more for every power of ten that values come more often than every five minutes.
const OFTEN: f32 = 6.0;
/// How much more for every power of ten that the series is known for longer than so many points; and
/// how much less, for every power of ten that it is known for shorter, because what it did not yet do
/// cannot count for much.
const KNOWN: f32 = 4000.0;
const LONGER_KNOWN: f32 = 1.0;
const SHORTER_KNOWN: f32 = 2.0;
/// So many points after an alarm raise none.
const REST: u32 = 20;
/// So many points are needed before it is known how far is far.
const SETTLED: u64 = 100;
/// Nothing is said before so many points and so much time.
const WARM: u64 = 150;
const WARM_MILLIS: i64 = 2 * 86_400_000;
const HOUR: i64 = 3_600_000;

/// What is remembered of one series.
#[derive(Debug, Clone)]
pub(super) struct Auto {
    direction: Direction,
    input: Input,
    seen: u64,
    resting: u32,
    /// How much more evidence is asked for, as a share.
    raised: f32,
    learned: Learned,
}

/// What is of no use any more when the series turns out to be of another kind.
#[derive(Debug, Clone)]
struct Learned {
    count: u64,
    since: Timestamp,
    extent: Extent,
    recent: Recent,
    middles: [Middle; 3],
    hours: Hours,
    shapes: [Shape; 2],
    /// The rarity of the last shapes, until there are others.
    shaped: [f32; 2],
    tails: [Tail; VIEWS],
    shape_tails: [Tail; 2],
    evidence: Tail,
}

fn shapes() -> [Shape; 2] {
    // 96 points out of the last 3,000, and 288 out of the last 6,000
    [Shape::new(6, 16, 512), Shape::new(24, 12, 256)]
}

impl Learned {
    fn new(at: Timestamp, value: f32) -> Learned {
        Learned {
            count: 0,
            since: at,
            extent: Extent::NONE,
            recent: Recent::at(value),
            middles: Default::default(),
            hours: Hours::default(),
            shapes: shapes(),
            shaped: [0.0; 2],
            tails: Default::default(),
            shape_tails: Default::default(),
            evidence: Tail::default(),
        }
    }

    /// What each view makes of it.
    fn rarities(&self, views: &Views) -> [f32; VIEWS] {
        let mut rarities = [0.0; VIEWS];
        for ((rarity, view), tail) in rarities.iter_mut().zip(views).zip(&self.tails) {
            if !view.is_nan() {
                *rarity = (tail.rarity(view.abs()) - USUAL).clamp(0.0, MOST);
            }
        }
        rarities
    }

    fn evidence(&self, rarities: &[f32; VIEWS]) -> f32 {
        let rarest = |alike: &&[usize]| alike.iter().filter_map(|view| rarities.get(*view)).copied().fold(0.0, f32::max);
        ALIKE.iter().map(rarest).sum::<f32>() + self.shaped[0].max(self.shaped[1])
    }

    /// What the most evidence comes from.
    fn sign(&self, rarities: &[f32; VIEWS]) -> Sign {
        let views = SIGNS.into_iter().zip(rarities.iter().copied());
        let shapes = self.shapes.iter().map(|shape| Sign::Course(shape.values())).zip(self.shaped);
        // of equal ones the first, which is said the shortest
        views.chain(shapes).fold((Sign::Level, 0.0), |most, one| if one.1 > most.1 { one } else { most }).0
    }

    fn look_at_shapes(&mut self, value: f32) {
        let settled = self.count >= SETTLED;
        for ((shape, tail), rarity) in self.shapes.iter_mut().zip(&mut self.shape_tails).zip(&mut self.shaped) {
            if let Some(distance) = shape.learn(value) {
                *rarity = (tail.rarity(distance) - USUAL).clamp(0.0, MOST);
                if settled {
                    tail.learn(distance);
                }
            }
        }
    }

    fn learn(&mut self, hour: i64, value: f32, usual: Usual, views: &Views, evidence: f32) {
        if self.count >= SETTLED {
            for (tail, view) in self.tails.iter_mut().zip(views) {
                if !view.is_nan() {
                    tail.learn(view.abs());
                }
            }
            self.evidence.learn(evidence);
        }
        self.recent.learn(value, &mut self.middles, usual);
        self.hours.learn(hour, value);
        self.count += 1;
    }

    fn tails(&self) -> impl Iterator<Item = &Tail> {
        self.tails.iter().chain(&self.shape_tails).chain([&self.evidence])
    }
}

impl Auto {
    pub(super) fn new(settings: &settings::Auto) -> Auto {
        Auto {
            direction: settings.direction,
            input: Input::default(),
            seen: 0,
            resting: 0,
            raised: 0.0,
            learned: Learned::new(Timestamp::ZERO, 0.0),
        }
    }

    pub(super) fn step(&mut self, at: Timestamp, value: f64) -> Judged {
        let seen = self.seen;
        let since = self.learned.since;
        let mut judged = Judged { alarm: None, expected: None, rank: None, seen, since, extent: None, rose_from: None };
        let Some(raw) = sane(value) else { return judged };
        let before = (seen > 0).then(|| self.input.clone());
        let taken = self.input.take(at, raw);
        self.seen += 1;
        let Some(value) = taken.value else { return judged };
        if seen == 0 || taken.anew {
            self.learned = Learned::new(at, value);
            judged.since = at;
        }
        judged.extent = self.learned.extent.band();
        let hour = at.millis() / HOUR;
        let usual = self.learned.hours.look_up(hour);
        let mut views = self.learned.recent.views(value, &self.learned.middles, usual, taken.after_gap);
        if self.learned.count == 0 {
            views = [f32::NAN; VIEWS];
        }
        self.learned.look_at_shapes(value);
        let rarities = self.learned.rarities(&views);
        let evidence = self.learned.evidence(&rarities);
        self.raised -= self.raised * narrow(1.0 / FORGIVEN.max(FORGIVEN_SECONDS / self.input.interval().max(1e-3)));
        let known = self.learned.count >= WARM && at.millis() - self.learned.since.millis() >= WARM_MILLIS;
        let rests = self.resting > 0;
        self.resting = self.resting.saturating_sub(1);
        if rests || evidence > 0.0 {
            let enough = self.enough();
            let found = !rests && evidence >= enough;
            if let Some(before) = before.filter(|_| known && (found || rests)) {
                judged.expected = self.band(&before, at, usual, taken.after_gap, enough);
                // what became a counter just now was not judged as one before
                judged.rose_from = self.input.rises_from().and(before.rises_from());
            }
            if found {
                let side = match judged.expected {
                    Some(band) if raw > band.high => Side::High,
                    Some(band) if raw < band.low => Side::Low,
                    _ => side(&views, &rarities),
                };
                if known && self.direction.wants(side) {
                    let sign = self.learned.sign(&rarities);
                    judged.alarm = Some(Alarm { side, score: f64::from(evidence / enough), sign });
                    judged.rank = Some(self.learned.evidence.rank(evidence));
                }
                self.resting = REST;
                self.raised += MORE;
            }
        }
        self.learned.extent.learn(taken.plain);
        self.learned.learn(hour, value, usual, &views, evidence);
        judged
    }

    /// How much evidence suffices now.
    fn enough(&self) -> f32 {
        let known = narrow(super::real(usize::try_from(self.learned.count).unwrap_or(usize::MAX)).min(f64::from(tail::MEMORY)));
        let interval = narrow(self.input.interval().max(1e-3));
        let often = OFTEN * (300.0 / interval).log10().max(0.0);
        let longer = ((known + 100.0) / KNOWN).log10();
        let (longer, shorter) = (longer.max(0.0), longer.min(0.0));
        (ENOUGH + often) * (1.0 + self.raised) + LONGER_KNOWN * longer + SHORTER_KNOWN * shorter
    }

    /// The values that would have raised no alarm at the same moment.
    fn band(&self, before: &Input, at: Timestamp, usual: Usual, after_gap: bool, enough: f32) -> Option<Band> {
        let Learned { recent, middles, tails, .. } = &self.learned;
        let enough_for = |value: f32| {
            let views = recent.views(value, middles, usual, after_gap);
            self.learned.evidence(&self.learned.rarities(&views)) >= enough
        };
        let [level, ..] = tails;
        let edge = level.edge()?;
        let middle = usual.day.filter(|_| !middles[0].has_trend()).unwrap_or(middles[0].center());
        let back = |value: f32| self.input.give_back(before, at, value);
        if enough_for(middle) {
            // nothing would have been usual after what came before: what is in 99 of 100 points
            return self.possible(Band { low: back(middle - edge), high: back(middle + edge) });
        }
        let reach = |sign: f32| {
            let (mut inside, mut step) = (middle, edge.max(f32::MIN_POSITIVE));
            for _ in 0..64 {
                if enough_for(inside + sign * step) {
                    break;
                }
                inside += sign * step;
                step *= 2.0;
            }
            for _ in 0..16 {
                step /= 2.0;
                if !enough_for(inside + sign * step) {
                    inside += sign * step;
                }
            }
            back(inside)
        };
        self.possible(Band { low: reach(-1.0), high: reach(1.0) })
    }

    /// A band without what cannot be; that of a counter is about its value, and begins where it stood.
    fn possible(&self, band: Band) -> Option<Band> {
        if self.input.rises_from().is_some() { Some(band) } else { self.learned.extent.possible(band) }
    }

    pub(super) fn heap(&self) -> usize {
        let learned = &self.learned;
        let tails: usize = learned.tails().map(Tail::heap).sum();
        let middles: usize = learned.middles.iter().map(Middle::heap).sum();
        let shapes: usize = learned.shapes.iter().map(Shape::heap).sum();
        tails + middles + shapes + learned.hours.heap()
    }

    pub(super) fn encode(&self, to: &mut Writer) {
        let learned = &self.learned;
        to.byte(0);
        self.input.encode(to);
        to.u64(self.seen);
        to.u32(self.resting);
        to.f32(self.raised);
        to.u64(learned.count);
        to.i64(learned.since.millis());
        learned.extent.encode(to);
        learned.recent.encode(to);
        learned.middles.iter().for_each(|middle| middle.encode(to));
        learned.hours.encode(to);
        learned.shapes.iter().for_each(|shape| shape.encode(to));
        learned.shaped.iter().for_each(|rarity| to.f32(*rarity));
        learned.tails().for_each(|tail| tail.encode(to));
    }

    pub(super) fn decode(settings: &settings::Auto, from: &mut Reader<'_>) -> Result<Auto, String> {
        let mut auto = Auto::new(settings);
        if from.byte()? != 0 {
            return Err("the state is of another method".to_owned());
        }
        auto.input = Input::decode(from)?;
        auto.seen = from.u64()?;
        auto.resting = from.u32()?.min(REST);
        auto.raised = from.f32()?;
        let learned = &mut auto.learned;
        learned.count = from.u64()?;
        learned.since = Timestamp::from_millis(from.i64()?);
        learned.extent = Extent::decode(from)?;
        learned.recent = Recent::decode(from)?;
        for middle in &mut learned.middles {
            *middle = Middle::decode(from)?;
        }
        learned.hours = Hours::decode(from)?;
        let [blocks, longer] = shapes();
        learned.shapes = [blocks.decode(from)?, longer.decode(from)?];
        for rarity in &mut learned.shaped {
            *rarity = from.f32()?;
        }
        for tail in learned.tails.iter_mut().chain(&mut learned.shape_tails).chain([&mut learned.evidence]) {
            *tail = Tail::decode(from)?;
        }
        Ok(auto)
    }
}

/// On which side most of the evidence is.
fn side(views: &Views, rarities: &[f32; VIEWS]) -> Side {
    let signed = views.iter().zip(rarities).take(ROUGH).filter(|(view, _)| !view.is_nan());
    let sum: f32 = signed.map(|(view, rarity)| rarity.copysign(*view)).sum();
    let leaning = if sum == 0.0 { views[LEVEL] } else { sum };
    if leaning < 0.0 { Side::Low } else { Side::High }
}

/// The nearest number of half the width; what is beyond all of them is held to the last.
#[allow(clippy::as_conversions, clippy::cast_possible_truncation, reason = "rounding is what it is for")]
fn narrow(value: f64) -> f32 {
    value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}
