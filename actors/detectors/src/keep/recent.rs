//! The order in which places were last used: a list through an array, so that a use costs a few writes and no search.

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    newer: u32,
    older: u32,
    used: bool,
}

/// Places by their last use.
#[derive(Debug)]
pub(super) struct Recent {
    links: Vec<Link>,
    newest: u32,
    oldest: u32,
    len: usize,
}

impl Default for Recent {
    fn default() -> Recent {
        Recent { links: Vec::new(), newest: NONE, oldest: NONE, len: 0 }
    }
}

impl Recent {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The place that was not used for longest.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    fn link(&mut self, place: u32) -> Option<&mut Link> {
        usize::try_from(place).ok().and_then(|place| self.links.get_mut(place))
    }

    /// A place is used from now on.
    pub(super) fn add(&mut self, place: u32) {
        let wanted = usize::try_from(place).unwrap_or(usize::MAX).saturating_add(1);
        if self.links.len() < wanted {
            self.links.resize(wanted, Link { newer: NONE, older: NONE, used: false });
        }
        if self.link(place).is_some_and(|link| link.used) {
            return self.refresh(place);
        }
        self.len = self.len.saturating_add(1);
        self.push(place);
    }

    fn push(&mut self, place: u32) {
        let older = self.newest;
        if let Some(link) = self.link(place) {
            *link = Link { newer: NONE, older, used: true };
        }
        match self.link(older) {
            Some(link) => link.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }

    fn cut(&mut self, place: u32) -> bool {
        let Some(Link { newer, older, used: true }) = self.link(place).copied() else { return false };
        match self.link(newer) {
            Some(link) => link.older = older,
            None => self.newest = older,
        }
        match self.link(older) {
            Some(link) => link.newer = newer,
            None => self.oldest = newer,
        }
        true
    }

    /// A place is used again.
    #[inline]
    pub(super) fn refresh(&mut self, place: u32) {
        if self.newest != place && self.cut(place) {
            self.push(place);
        }
    }

    /// A place is used no longer.
    pub(super) fn remove(&mut self, place: u32) {
        if self.cut(place) {
            self.len = self.len.saturating_sub(1);
            if let Some(link) = self.link(place) {
                *link = Link { newer: NONE, older: NONE, used: false };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_list(moves in proptest::collection::vec((0..3_u8, 0..12_u32), 0..200)) {
            let mut recent = Recent::default();
            let mut plain: Vec<u32> = Vec::new();
            for (what, place) in moves {
                let known = plain.contains(&place);
                plain.retain(|other| *other != place);
                match what {
                    0 => { recent.add(place); plain.push(place); }
                    1 => { recent.refresh(place); if known { plain.push(place); } }
                    _ => recent.remove(place),
                }
                prop_assert_eq!(recent.len(), plain.len());
                prop_assert_eq!(recent.oldest(), plain.first().copied());
            }
            for place in plain {
                prop_assert_eq!(recent.oldest(), Some(place));
                recent.remove(place);
            }
            prop_assert_eq!(recent.oldest(), None);
        }
    }
}
