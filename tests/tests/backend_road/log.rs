//! Listens to the log, which is where a backend says what it cannot do.

use std::{
    io,
    sync::{Arc, Mutex},
};

use grpcrouter_tests::world::eventually;
use tracing_subscriber::{fmt::MakeWriter, util::SubscriberInitExt as _};

/// What is logged on this thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn listen(&self) -> impl Drop + use<> {
        tracing_subscriber::fmt().with_ansi(false).with_writer(self.clone()).set_default()
    }

    pub(crate) async fn has(&self, text: &str) {
        eventually(&format!("the log has {text:?}"), || {
            String::from_utf8_lossy(&self.0.lock().unwrap()).contains(text)
        })
        .await;
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
