//! One direction of a stream: bytes arrive late, in chunks of any size, in order and complete.
//! The receiving shell cuts whole gRPC messages out of them by their five-byte prefix.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use grpcrouter_protocol::Time;

use super::random::Random;

#[derive(Debug)]
pub(crate) struct Link {
    longest_delay: Duration,
    /// Bytes that may be on the way; a writer waits for room as it would for HTTP/2's.
    capacity: usize,
    on_the_way: VecDeque<(Time, Bytes)>,
    bytes: usize,
    last: Time,
    arrived: BytesMut,
}

impl Link {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self {
            longest_delay: Duration::from_millis(random.between(0, 40)),
            capacity: random.size(1, 4_000),
            on_the_way: VecDeque::new(),
            bytes: 0,
            last: Time::default(),
            arrived: BytesMut::new(),
        }
    }

    pub(crate) fn may_write(&self) -> bool {
        self.bytes < self.capacity
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(crate) fn write(&mut self, mut message: Bytes, random: &mut Random, now: Time) {
        self.bytes += message.len();
        while !message.is_empty() {
            let chunk = message.split_to(random.size(1, message.len()));
            let delay = random.between(0, self.longest_delay.as_nanos() as u64);
            // In order: a chunk is never earlier than the one before it.
            self.last = self.last.max(now + Duration::from_nanos(delay));
            self.on_the_way.push_back((self.last, chunk));
        }
    }

    /// The next whole message that has arrived, without its prefix.
    pub(crate) fn read(&mut self, now: Time) -> Option<Bytes> {
        loop {
            if self.arrived.len() >= 5 {
                assert_eq!(self.arrived[0], 0, "not compressed");
                let len = u32::from_be_bytes(self.arrived[1..5].try_into().unwrap()) as usize;
                if self.arrived.len() >= 5 + len {
                    self.arrived.advance(5);
                    return Some(self.arrived.split_to(len).freeze());
                }
            }
            let (at, _) = self.on_the_way.front()?;
            if *at > now {
                return None;
            }
            let (_, chunk) = self.on_the_way.pop_front()?;
            self.bytes -= chunk.len();
            self.arrived.extend_from_slice(&chunk);
        }
    }
}
