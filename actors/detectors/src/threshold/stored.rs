//! A series as it is stored: what it is, as JSON, a line break, and its numbers packed.

use super::{
    compiled::Compiled,
    pack::{Packer, Unpacker},
    series::{KEPT, Points, Series},
    window::{Shape, Window},
};

impl Series {
    pub(super) fn store(&self) -> Vec<u8> {
        // made of texts, numbers and a map with text keys: it can always be written, and JSON has no bare line break
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        let mut packer = Packer::behind(bytes);
        self.window.pack(&mut packer);
        packer.len(self.points.first.len() + self.points.last.len());
        for (at, value) in self.points.first.iter().chain(&self.points.last) {
            packer.time(*at);
            packer.value(*value);
        }
        packer.bytes()
    }

    /// Takes back what was stored; also says which of `rules` it is under, if there still is one.
    pub(super) fn load(body: &[u8], rules: &[Compiled]) -> Result<(Series, Option<usize>), String> {
        let end = body.iter().position(|byte| *byte == b'\n').unwrap_or(body.len());
        let (head, rest) = body.split_at_checked(end).unwrap_or((body, &[]));
        let mut series: Series = serde_json::from_slice(head).map_err(|error| error.to_string())?;
        let rule = rules.iter().position(|compiled| compiled.rule.id == series.rule && compiled.digest == series.digest);
        let any = Shape { aggregation: super::Aggregation::Last, span: std::time::Duration::ZERO, keep: 1 };
        let shape = rule.and_then(|rule| rules.get(rule)).map_or(any, |compiled| compiled.shape);
        let mut unpacker = Unpacker::new(rest.get(1..).unwrap_or_default());
        series.unpack(&mut unpacker, shape).map_err(|cut| cut.to_string())?;
        Ok((series, rule))
    }

    fn unpack(&mut self, unpacker: &mut Unpacker<'_>, shape: Shape) -> Result<(), super::pack::Cut> {
        self.window = Window::unpack(unpacker, shape)?;
        self.points = Points::default();
        for _ in 0..unpacker.len(9)?.min(2 * KEPT) {
            self.points.push((unpacker.time()?, unpacker.value()?));
        }
        Ok(())
    }
}
