//! A set of the states that are resolved.

const BITS: usize = u64::BITS as usize;

/// Some of the states, by their index. Bits behind the last state are always set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StateSet(Box<[u64]>);

impl StateSet {
    /// None of `count` states.
    pub fn none(count: usize) -> Self {
        let mut words = vec![0; count.div_ceil(BITS)].into_boxed_slice();
        if let Some(last) = words.last_mut()
            && !count.is_multiple_of(BITS)
        {
            *last = u64::MAX << (count % BITS);
        }
        Self(words)
    }

    /// All of `count` states.
    pub fn all(count: usize) -> Self {
        Self(vec![u64::MAX; count.div_ceil(BITS)].into_boxed_slice())
    }

    /// Adds the state with this index, which must be less than the count.
    pub fn insert(&mut self, index: usize) {
        self.0[index / BITS] |= 1 << (index % BITS);
    }

    /// Adds the states of `other`, a set of as many states. Returns whether that added any.
    pub fn add(&mut self, other: &Self) -> bool {
        let mut grew = false;
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            grew |= *more & !*word != 0;
            *word |= more;
        }
        grew
    }

    /// The states that are not in this set of `count`.
    pub fn others(&self, count: usize) -> Self {
        let mut others = Self::none(count);
        for (word, here) in others.0.iter_mut().zip(&self.0) {
            *word |= !here;
        }
        others
    }

    pub fn is_full(&self) -> bool {
        self.0.iter().all(|word| *word == u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_full_when_each_of_its_states_was_added() {
        for count in [1, 2, 63, 64, 65, 128, 1_000] {
            let mut set = StateSet::none(count);
            for index in 0..count {
                assert!(!set.is_full(), "{index} of {count}");
                let mut one = StateSet::none(count);
                one.insert(index);
                assert!(set.add(&one) && !set.add(&one), "{index} of {count}");
            }
            assert!(set.is_full() && set == StateSet::all(count), "{count}");
            assert_eq!(set.others(count), StateSet::none(count));
            assert_eq!(StateSet::none(count).others(count), set);
        }
    }
}
