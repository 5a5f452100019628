//! A list that only grows and is read without a lock: what was there from the start, and room for what comes later.
//! What is in it stays where it is, so a reference lives as long as the list does.

use std::sync::OnceLock;

/// Things by number, each from the day on which it came.
#[derive(Debug)]
pub(super) struct Grown<T> {
    first: Vec<T>,
    /// Filled from the front.
    later: Box<[OnceLock<T>]>,
}

impl<T> Grown<T> {
    /// With these, and room for so many more.
    pub(super) fn new(first: Vec<T>, room: usize) -> Self {
        Self { first, later: (0..room).map(|_| OnceLock::new()).collect() }
    }

    pub(super) fn get(&self, number: usize) -> Option<&T> {
        match self.first.get(number) {
            Some(thing) => Some(thing),
            None => self.later.get(number.checked_sub(self.first.len())?)?.get(),
        }
    }

    /// Its number; `None` if there is no room. Two that push at the same time both find a place, each its own.
    pub(super) fn push(&self, mut thing: T) -> Option<usize> {
        for (at, place) in self.later.iter().enumerate() {
            match place.set(thing) {
                Ok(()) => return Some(self.first.len() + at),
                Err(back) => thing = back,
            }
        }
        None
    }

    /// All of them, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(self.later.iter().map_while(OnceLock::get))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_later_has_the_next_numbers_as_long_as_there_is_room() {
        let list = Grown::new(vec!["a", "b"], 2);

        assert_eq!([list.push("c"), list.push("d"), list.push("e")], [Some(2), Some(3), None]);
        assert_eq!(list.iter().copied().collect::<String>(), "abcd");
        assert_eq!([0, 2, 3, 4].map(|number| list.get(number).copied()), [Some("a"), Some("c"), Some("d"), None]);
    }

    #[test]
    fn a_list_without_room_keeps_what_it_began_with() {
        let list = Grown::new(vec![1], 0);

        assert_eq!((list.push(2), list.get(0), list.get(1)), (None, Some(&1), None));
    }
}
