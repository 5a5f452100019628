//! One direction of a connection: bytes arrive late, in chunks of any size, in order and complete, until it dies.
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
    /// What is written from now on goes nowhere.
    is_dead: bool,
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
            is_dead: false,
        }
    }

    pub(crate) fn may_write(&self) -> bool {
        self.bytes < self.capacity
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.is_dead
    }

    /// True if nothing comes any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.is_dead && self.bytes == 0
    }

    /// Nothing more can be written.
    pub(crate) fn close(&mut self) {
        self.is_dead = true;
    }

    /// It breaks at some byte of those on their way: what is before it still arrives.
    pub(crate) fn cut(&mut self, random: &mut Random) {
        self.is_dead = true;
        let mut left = random.size(0, self.bytes);
        self.bytes = left;
        self.on_the_way.retain_mut(|(_, chunk)| {
            chunk.truncate(left);
            left -= chunk.len();
            !chunk.is_empty()
        });
    }

    /// The reader is gone.
    pub(crate) fn drop_unread(&mut self) {
        self.on_the_way.clear();
        self.bytes = 0;
        self.arrived.clear();
    }

    pub(crate) fn write(&mut self, mut message: Bytes, random: &mut Random, now: Time) {
        if self.is_dead {
            return;
        }
        self.bytes += message.len();
        while !message.is_empty() {
            let chunk = message.split_to(random.size(1, message.len()));
            let delay = random.between(0, self.longest_delay.as_nanos() as u64);
            // In order: a chunk is never earlier than the one before it.
            self.last = self.last.max(now + Duration::from_nanos(delay));
            self.on_the_way.push_back((self.last, chunk));
        }
    }

    /// All that is on its way, in order.
    pub(crate) fn in_flight(&self) -> Vec<u8> {
        self.on_the_way.iter().flat_map(|(_, chunk)| chunk).chain(&self.arrived).copied().collect()
    }

    /// When the next bytes arrive.
    pub(crate) fn next_at(&self) -> Option<Time> {
        self.on_the_way.front().map(|(at, _)| *at)
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
