//! How unlike everything before it the shape of the last values is.

use super::{
    super::wire::{Reader, Writer},
    narrow,
};

/// The means of blocks of values, and how far the last of them are from the most similar ones before:
/// discords (Keogh, Lin and Fu, "HOT SAX", 2005), found as they come. Shapes are compared as they are
/// and not brought to the same level and size, because both matter.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    means: Vec<f32>,
    sum: f64,
    count: u32,
    /// Values in a block.
    per: u32,
    /// Blocks in a shape.
    length: usize,
    /// Blocks remembered.
    most: usize,
    /// Where the nearest shape was; it makes the search faster and changes nothing else.
    near: usize,
}

impl Shape {
    pub(super) fn new(per: u32, length: usize, most: usize) -> Shape {
        Shape { means: Vec::new(), sum: 0.0, count: 0, per, length, most, near: 0 }
    }

    /// How many values a shape is of.
    pub(super) fn values(&self) -> u16 {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        u16::try_from(self.per.saturating_mul(length)).unwrap_or(u16::MAX)
    }

    /// When a block is full, the Euclidean distance of the last shape from the nearest one before
    /// that does not overlap it.
    pub(super) fn learn(&mut self, value: f32) -> Option<f32> {
        self.sum += f64::from(value);
        self.count += 1;
        if self.count < self.per {
            return None;
        }
        let mean = narrow(self.sum / f64::from(self.per));
        (self.sum, self.count) = (0.0, 0);
        if self.means.len() < self.most {
            if self.means.len() == self.means.capacity() {
                self.means.reserve_exact((self.means.len() / 2).max(16).min(self.most - self.means.len()));
            }
            self.means.push(mean);
        } else {
            self.means.copy_within(1.., 0);
            if let Some(last) = self.means.last_mut() {
                *last = mean;
            }
        }
        if self.means.len() < 3 * self.length {
            return None;
        }
        let (past, now) = self.means.split_at_checked(self.means.len() - self.length)?;
        // begins where the last one was near, because most others are then left off soon
        let near = past.get(self.near..self.near + self.length);
        let mut nearest = near.map_or(f32::MAX, |before| distance(now, before, f32::MAX));
        for (place, before) in past.windows(self.length).enumerate() {
            let distance = distance(now, before, nearest);
            if distance < nearest {
                (nearest, self.near) = (distance, place);
            }
        }
        if self.means.len() < self.most {
            self.near += 1;
        }
        Some(nearest.sqrt())
    }

    pub(super) fn heap(&self) -> usize {
        self.means.capacity() * size_of::<f32>()
    }

    pub(super) fn encode(&self, to: &mut Writer) {
        to.f32s(self.means.iter());
        to.f64(self.sum);
        to.u32(self.count);
    }

    pub(super) fn decode(self, from: &mut Reader<'_>) -> Result<Shape, String> {
        Ok(Shape { means: from.f32s(self.most)?, sum: from.f64()?, count: from.u32()?.min(self.per), ..self })
    }
}

/// The square of the distance, or any number that is not below `most`.
fn distance(now: &[f32], before: &[f32], most: f32) -> f32 {
    let mut distance = 0.0;
    for ([a, b, c, d], [e, f, g, h]) in now.as_chunks::<4>().0.iter().zip(before.as_chunks::<4>().0) {
        let (a, b, c, d) = (a - e, b - f, c - g, d - h);
        distance += (a * a + b * b) + (c * c + d * d);
        if distance >= most {
            break;
        }
    }
    distance
}
