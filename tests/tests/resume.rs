//! A dropped connection loses no call: the instance dials again, the tunnel goes on, and with it every call in it, byte for
//! byte, once. And an instance that was told of one gateway goes to the others too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "resume/cuts.rs"]
mod cuts;
#[path = "resume/ends.rs"]
mod ends;
#[path = "resume/following.rs"]
mod following;
#[path = "resume/moves.rs"]
mod moves;
#[path = "resume/played.rs"]
mod played;
#[path = "resume/world.rs"]
mod world;
