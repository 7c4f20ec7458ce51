//! Sets of names in one block of memory each.

use std::cmp::Ordering;

use crate::memory::ALLOCATION_BYTES;

/// A set of names: their texts in order, one after the other. It takes little more memory than the texts.
#[derive(Debug, Default)]
pub(super) struct Names {
    texts: Box<str>,
    /// The place in `texts` at which each name ends.
    ends: Box<[usize]>,
}

impl Names {
    pub(super) fn new(mut names: Vec<&str>) -> Self {
        names.sort_unstable();
        names.dedup();
        let mut end = 0;
        let ends = names.iter().map(|name| {
            end += name.len();
            end
        });
        Self { ends: ends.collect(), texts: names.concat().into() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The length of all texts together.
    pub(super) fn text_bytes(&self) -> usize {
        self.texts.len()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.get(middle).cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return true,
                Ordering::Greater => high = middle,
            }
        }
        false
    }

    /// The names in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).map(|index| self.get(index))
    }

    fn get(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.texts[start..self.ends[index]]
    }

    /// The memory in bytes, without that of the struct itself.
    pub(super) fn bytes(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        self.texts.len() + size_of_val(&*self.ends) + 2 * ALLOCATION_BYTES
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_found_whole() {
        let check = |names: &[&str], name: &str, expected: bool| {
            assert_eq!(Names::new(names.to_vec()).contains(name), expected, "{name:?} in {names:?}");
        };
        check(&[], "", false);
        check(&[""], "", true);
        check(&[""], "a", false);
        check(&["ab", "c"], "ab", true);
        check(&["ab", "c"], "a", false);
        check(&["ab", "c"], "abc", false);
        check(&["ab", "c"], "", false);
        check(&["é", "e"], "é", true);
        check(&["b", "a", "b"], "b", true);
    }

    #[test]
    fn a_set_takes_little_more_than_its_texts() {
        assert_eq!(Names::default().bytes(), 0);
        let texts: Vec<String> = (0..1_000).map(|number| format!("m.{number:04}")).collect();
        let names = Names::new(texts.iter().map(String::as_str).collect());
        assert_eq!(names.bytes(), 6_000 + 1_000 * size_of::<usize>() + 2 * ALLOCATION_BYTES);
    }

    proptest! {
        #[test]
        fn a_set_has_what_it_was_made_of(
            made_of in prop::collection::vec("[abé]{0,4}", 0..24),
            others in prop::collection::vec("[abé]{0,4}", 0..24),
        ) {
            let names = Names::new(made_of.iter().map(String::as_str).collect());
            for name in made_of.iter().chain(&others) {
                prop_assert_eq!(names.contains(name), made_of.contains(name), "{}", name);
            }
            let mut listed = made_of;
            listed.sort();
            listed.dedup();
            prop_assert_eq!(names.iter().collect::<Vec<_>>(), listed);
        }
    }
}
