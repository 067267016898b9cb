//! Numbers as bytes, for the state of a series.

/// What is written, little-endian and without names.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn f64(&mut self, value: f64) {
        self.u64(value.to_bits());
    }

    pub(super) fn f32(&mut self, value: f32) {
        self.u32(value.to_bits());
    }

    pub(super) fn f32s<'a>(&mut self, values: impl ExactSizeIterator<Item = &'a f32>) {
        self.u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
        values.for_each(|value| self.f32(*value));
    }

    pub(super) fn f64s<'a>(&mut self, values: impl ExactSizeIterator<Item = &'a f64>) {
        self.u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
        values.for_each(|value| self.f64(*value));
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// What is read back. Nothing is believed: the bytes may be cut short or be something else.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or("the state ends too early")?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, String> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, String> {
        self.take().map(i64::from_le_bytes)
    }

    /// A number that is finite.
    pub(super) fn f64(&mut self) -> Result<f64, String> {
        let value = self.u64().map(f64::from_bits)?;
        if value.is_finite() { Ok(value) } else { Err("a number in the state is not finite".to_owned()) }
    }

    /// A number that is finite.
    pub(super) fn f32(&mut self) -> Result<f32, String> {
        let value = self.u32().map(f32::from_bits)?;
        if value.is_finite() { Ok(value) } else { Err("a number in the state is not finite".to_owned()) }
    }

    fn many<T>(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if count > most {
            return Err(format!("the state holds {count} numbers where at most {most} belong"));
        }
        (0..count).map(|_| one(self)).collect()
    }

    pub(super) fn f64s(&mut self, most: usize) -> Result<Vec<f64>, String> {
        self.many(most, Reader::f64)
    }

    pub(super) fn f32s(&mut self, most: usize) -> Result<Vec<f32>, String> {
        self.many(most, Reader::f32)
    }

    pub(super) fn end(self) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err("the state goes on after its end".to_owned()) }
    }
}
