//! Eviction by whether rows were asked for since a hand last passed them.
//!
//! Rows stand in order of arrival; the hand walks from the oldest and takes the first that was not asked for.
//!
//! # Source
//! SIEVE (NSDI'24).

const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    asked: bool,
    newer: u32,
    older: u32,
}

/// The order in which rows go, by their slots.
#[derive(Debug)]
pub(super) struct Sieve {
    links: Vec<Link>,
    rows: usize,
    newest: u32,
    oldest: u32,
    hand: u32,
}

impl Sieve {
    pub(super) const fn new() -> Self {
        Self { links: Vec::new(), rows: 0, newest: NIL, oldest: NIL, hand: NIL }
    }

    pub(super) fn asked(&mut self, slot: u32) {
        self.links[slot as usize].asked = true;
    }

    /// The next row to go that is not among `taken`; none where all of them are.
    pub(super) fn victim(&mut self, taken: &[u32]) -> Option<u32> {
        // Having come all the way round means that nothing is left to take.
        self.pass_hand().filter(|victim| !taken.contains(victim))
    }

    /// Moves the hand to the next row that was not asked for, clearing marks on the way.
    fn pass_hand(&mut self) -> Option<u32> {
        // Twice round at most: the first round may clear every mark.
        for _ in 0..=2 * self.rows {
            if self.hand == NIL {
                self.hand = self.oldest;
            }
            let link = self.links.get_mut(self.hand as usize)?;
            let at = self.hand;
            self.hand = link.newer;
            if !std::mem::take(&mut link.asked) {
                return Some(at);
            }
        }
        None
    }

    pub(super) fn insert(&mut self, slot: u32) {
        let link = Link { asked: false, newer: NIL, older: self.newest };
        match self.links.get_mut(slot as usize) {
            Some(free) => *free = link,
            None => self.links.push(link),
        }
        match self.newest {
            NIL => self.oldest = slot,
            newest => self.links[newest as usize].newer = slot,
        }
        self.newest = slot;
        self.rows += 1;
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let Link { newer, older, .. } = self.links[slot as usize];
        match older {
            NIL => self.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
        match newer {
            NIL => self.newest = older,
            newer => self.links[newer as usize].older = older,
        }
        if self.hand == slot {
            self.hand = newer;
        }
        self.rows -= 1;
    }
}
