//! What calls must bear: cancels at any point, deadlines, thousands at once, messages of any size, clients that vanish,
//! handlers that panic, readers that stall. One file for each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "calls/cancel.rs"]
mod cancel;
#[path = "calls/deadline.rs"]
mod deadline;
#[path = "calls/load.rs"]
mod load;
#[path = "calls/panics.rs"]
mod panics;
#[path = "calls/sizes.rs"]
mod sizes;
#[path = "calls/stalled.rs"]
mod stalled;
#[path = "calls/vanish.rs"]
mod vanish;
#[path = "calls/window.rs"]
mod window;

use bytes::Bytes;
use grpcrouter_tests::{probe::say, raw::frame};
use myservice::proto::Method2Request;

/// One of the four kinds of methods, and how to have the probe run one for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    path: &'static str,
    /// As the probe calls it.
    name: &'static str,
    /// The client sends a stream.
    uploads: bool,
    /// The service sends a stream.
    answers: bool,
}

const UNARY: Kind = Kind { path: "/myservice.MyService/Method1", name: "method1", uploads: false, answers: false };
const KINDS: [Kind; 4] = [
    UNARY,
    Kind { path: "/myservice.MyService/Method2", name: "method2", uploads: false, answers: true },
    Kind { path: "/myservice.MyService/Method3", name: "method3", uploads: true, answers: false },
    Kind { path: "/myservice.MyService/StreamMethod", name: "stream", uploads: true, answers: true },
];

impl Kind {
    /// A message of this kind; all request messages of the example have the text in the same place.
    fn message(self, text: &str) -> Bytes {
        let count = if self.answers && !self.uploads { 2 } else { 0 };
        frame(&Method2Request { text: text.to_owned(), count })
    }

    /// A message that leaves the handler waiting for ever if the client does not end the stream.
    fn endless(self) -> Bytes {
        self.message(if self.uploads { "more" } else { say::STALL })
    }

    fn begins(self) -> String {
        format!("{} begins", self.name)
    }

    fn dropped(self) -> String {
        format!("{} dropped", self.name)
    }
}
