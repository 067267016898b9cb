//! How unusual a value is for its series.
//!
//! A [`Judge`] holds what is remembered of one series. Each value is first judged by what is
//! remembered of those before it, then learned; nothing that comes later changes what was said. It is
//! pure: the same points give the same answers, whether or not the state was stored in between.
//!
//! * Points are taken in the order they arrive in. A point that is late, or that repeats a time, is
//!   a point like any other, and a gap counts for nothing: windows and rests are counted in points.
//!   Times say how far back the memory goes, and `auto` finds the time of day by them, in UTC.
//! * A value that is not a number, or infinite, is neither judged nor learned. Values beyond
//!   [`FARTHEST`] are taken for that, so that no sum of squares overflows.

pub mod settings;

mod auto;
mod classic;
mod extent;
mod moments;
mod reach;
mod sorted;
mod wire;

use opspilot_kernel::time::Timestamp;

pub use self::settings::{Auto, Direction, Ewma, Method, Side, Window};
use self::{
    classic::Classic,
    extent::Extent,
    wire::{Reader, Writer},
};

/// The largest values, up or down, that are told apart.
pub const FARTHEST: f64 = 1e150;
/// The largest score there is.
pub const HIGHEST_SCORE: f64 = 1e9;

/// The layout of a stored state.
const LAYOUT: u8 = 2;

/// What was said of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    /// That it is an anomaly.
    pub alarm: Option<Alarm>,
    /// The values that would have raised no alarm, as it was known before the value was seen; none
    /// beyond zero where none ever was. Not there as long as too little is known. `auto` looks for them
    /// with an alarm and while it rests after one; where no value would have been usual after those
    /// before it, they are what 99 of 100 values kept to.
    pub expected: Option<Band>,
    /// Given with an alarm: the share of the remembered past that was less unusual, from 0 to 1. Not
    /// there for `ewma`, which judges an average and not the value.
    pub rank: Option<f64>,
    /// How many values were seen before this one.
    pub seen: u64,
    /// How far back the memory goes that it was judged by: never farther than it does, and nearer by
    /// an eighth of it at most.
    pub since: Timestamp,
    /// The least and the greatest value before this one since it was first heard of; of a counter, what
    /// it rose by. Not there before the first.
    pub extent: Option<Band>,
    /// The series is a counter, and judged is what it rose by since it had this value.
    pub rose_from: Option<f64>,
}

/// That a value is an anomaly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alarm {
    /// On which side.
    pub side: Side,
    /// How far from what is usual, in what the method measures by: standard deviations, median
    /// absolute deviations (scaled), interquartile ranges; for `auto` the evidence as a multiple of
    /// what suffices. At most [`HIGHEST_SCORE`].
    pub score: f64,
    /// What about it is unusual most of all.
    pub sign: Sign,
}

/// What gives an anomaly away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// The value, by its distance from what is usual: the rank is the share of values that are less far off.
    Value,
    /// The value, beside other evidence: the rank is the share of points with less evidence.
    Level,
    /// How far it is from the value before.
    Leap,
    /// The mean of so many values, this one the last of them.
    Mean(u8),
    /// The average in which older values weigh less and less.
    Average,
    /// The value, or a few of them, at this hour of the day or of the week.
    Hour,
    /// How far the last so many values are from each other.
    Restless(u8),
    /// The course of about the last so many values.
    Course(u16),
}

/// A range of values, both ends included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
}

/// What is remembered of one series.
#[derive(Debug, Clone)]
pub struct Judge(Inner);

#[derive(Debug, Clone)]
enum Inner {
    Auto(Box<auto::Auto>),
    Classic(Box<Classic>),
}

impl Judge {
    /// One that has seen nothing.
    pub fn new(method: &Method) -> Judge {
        Judge(match method {
            Method::Auto(settings) => Inner::Auto(Box::new(auto::Auto::new(settings))),
            _ => Inner::Classic(Box::new(Classic::new(method))),
        })
    }

    /// Judges `value` by what came before it, and learns it.
    pub fn step(&mut self, at: Timestamp, value: f64) -> Judged {
        match &mut self.0 {
            Inner::Auto(auto) => auto.step(at, value),
            Inner::Classic(classic) => classic.step(at, value),
        }
    }

    /// How many bytes of memory it takes, all that it points to included.
    pub fn bytes(&self) -> usize {
        size_of::<Judge>()
            + match &self.0 {
                Inner::Auto(auto) => size_of::<auto::Auto>() + auto.heap(),
                Inner::Classic(classic) => size_of::<Classic>() + classic.heap(),
            }
    }

    /// What is remembered, as bytes for [`Judge::decode`].
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        to.byte(LAYOUT);
        match &self.0 {
            Inner::Auto(auto) => auto.encode(&mut to),
            Inner::Classic(classic) => classic.encode(&mut to),
        }
        to.done()
    }

    /// One that goes on exactly where the encoded one was. Direction, sensitivity, floor, minimum
    /// and rest may have changed in between.
    ///
    /// # Errors
    /// If the bytes are damaged, or of another method or window.
    pub fn decode(method: &Method, bytes: &[u8]) -> Result<Judge, String> {
        let mut from = Reader::new(bytes);
        let layout = from.byte()?;
        if layout != LAYOUT {
            return Err(format!("the state has layout {layout}, not {LAYOUT}"));
        }
        let inner = match method {
            Method::Auto(settings) => Inner::Auto(Box::new(auto::Auto::decode(settings, &mut from)?)),
            _ => Inner::Classic(Box::new(Classic::decode(method, &mut from)?)),
        };
        from.end()?;
        Ok(Judge(inner))
    }
}

/// `value` as it is judged; `None` if it is no number.
fn sane(value: f64) -> Option<f64> {
    value.is_finite().then(|| value.clamp(-FARTHEST, FARTHEST))
}

/// A count as a number to compute with.
fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
