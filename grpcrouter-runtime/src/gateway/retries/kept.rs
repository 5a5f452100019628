//! What an instance was given of a call that may be executed twice, kept until its answer begins: lost with its instance,
//! the call is opened again from here.

use bytes::{Bytes, BytesMut};
use grpcrouter_protocol::{OpenCall, Start, Time};

/// One request, as far as it went. Small parts are copied together, for each is a slice of something larger, which it
/// would keep in memory; large ones are shared.
#[derive(Debug)]
pub(in crate::gateway) struct Kept {
    start: Start,
    deadline: Option<Time>,
    parts: Vec<Bytes>,
    /// Comes after the parts.
    tail: BytesMut,
    /// Bytes of all.
    len: usize,
}

impl Kept {
    /// A call that is about to be opened; `None` if it is too large.
    pub(in crate::gateway) fn of(open: &OpenCall) -> Option<Box<Self>> {
        let (parts, tail) = (Vec::new(), BytesMut::new());
        let mut kept = Self { start: open.start.clone(), deadline: open.deadline, parts, tail, len: 0 };
        kept.more(&open.data).then(|| Box::new(kept))
    }

    /// More of the same request; false if it is too large to be kept.
    pub(in crate::gateway) fn more(&mut self, data: &Bytes) -> bool {
        self.len += data.len();
        if data.len() < LARGE {
            self.tail.extend_from_slice(data);
        } else {
            self.close_tail();
            self.parts.push(data.clone());
        }
        self.len <= MOST
    }

    /// The call as it was given, but for its half-close, which who gave it knows.
    pub(in crate::gateway) fn call(mut self) -> OpenCall {
        self.close_tail();
        let data = match <[Bytes; 1]>::try_from(self.parts) {
            Ok([whole]) => whole,
            Err(parts) => parts.concat().into(),
        };
        OpenCall { start: self.start, deadline: self.deadline, data, half_close: false }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.parts.push(self.tail.split().freeze());
        }
    }
}

/// Bytes of a request, at most: a usual message, and no more than a call's first window, so that at another instance it
/// needs no other limit.
const MOST: usize = 64 * 1024;

/// From here on a part is worth more than its copy costs.
const LARGE: usize = 2 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn open(data: impl Into<Bytes>) -> OpenCall {
        let start = Start { path: "/a.B/C".into(), ..Start::default() };
        OpenCall { start, deadline: Some(Time::from_nanos(7)), data: data.into(), half_close: true }
    }

    #[test]
    fn a_call_comes_back_as_it_was_given_however_its_bytes_came() {
        let sizes = [1_usize, 2047, 2048, 5, 9000, 2, 2, 20_000, 1, 0];
        let mut kept = Kept::of(&open("begins")).unwrap();
        let mut expected = b"begins".to_vec();
        for (number, size) in sizes.into_iter().enumerate() {
            let part = vec![u8::try_from(number).unwrap(); size];
            expected.extend_from_slice(&part);
            assert!(kept.more(&part.into()));
        }

        let back = kept.call();

        assert_eq!(back, OpenCall { half_close: false, ..open(expected) });
    }

    #[test]
    fn what_is_over_64_kib_is_not_kept() {
        let most = vec![0; 64 * 1024];
        assert!(Kept::of(&open([&most[..], b"x"].concat())).is_none());

        let mut kept = Kept::of(&open(most.clone())).unwrap();

        assert_eq!(Kept::of(&open(most.clone())).unwrap().call().data, most);
        assert!(!kept.more(&Bytes::from_static(b"x")));
    }

    #[test]
    fn a_small_part_is_copied_and_a_large_one_is_shared() {
        let batch = Bytes::from(vec![7; 16 * 1024]);

        let [small, large] = [2047, 2048].map(|len| Kept::of(&open(batch.slice(..len))).unwrap().call().data);

        assert_ne!(small.as_ptr(), batch.as_ptr());
        assert_eq!(large.as_ptr(), batch.as_ptr());
    }
}
