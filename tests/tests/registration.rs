//! Who may register, as what, and for how long: from a gateway's own port, with tokens and certificates, good and bad.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failed unwrap is a failed test")]

#[path = "registration/certificates.rs"]
mod certificates;
#[path = "registration/hijack.rs"]
mod hijack;
#[path = "registration/listeners.rs"]
mod listeners;
#[path = "registration/live.rs"]
mod live;
#[path = "registration/tokens.rs"]
mod tokens;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use grpcrouter_protocol::{Close, Event, Hello, RejectReason, Rejected};
use grpcrouter_runtime::{RegistrationFile, RegistrationPolicy, RegistrationRule, RegistrationToken};
use grpcrouter_tests::{
    by_hand::ByHand,
    world::{PATIENCE, TestGateway},
};
use tokio::time::{sleep, timeout};

/// A gateway that lets in whom its file names.
struct Guarded {
    gateway: TestGateway,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Guarded {
    /// With nobody in its file yet.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registration.toml");
        fs::write(&file, "# nobody yet\n").unwrap();
        let policy = RegistrationPolicy::file(&file);
        let gateway =
            // Who loses its connection is gone.
            TestGateway::start_with(|builder| {
                builder.registration(policy).drain_timeout(Duration::ZERO).resume_window(Duration::ZERO)
            })
            .await;
        Self { gateway, file, _folder: folder }
    }

    /// Makes a token, as `grpcrouter token create` does.
    fn token(&self, rule: RegistrationRule) -> RegistrationToken {
        self.token_until(rule, None)
    }

    fn token_until(&self, rule: RegistrationRule, expires: Option<SystemTime>) -> RegistrationToken {
        let mut file = RegistrationFile::read(&self.file).unwrap();
        let token = file.create_token(rule, expires).unwrap();
        file.write().unwrap();
        token
    }

    /// Takes tokens back, as `grpcrouter token revoke` does.
    fn revoke(&self, name_or_id: &str) {
        let mut file = RegistrationFile::read(&self.file).unwrap();
        file.revoke(name_or_id).unwrap();
        file.write().unwrap();
    }

    /// Changes the text of the file.
    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.file).unwrap();
        assert!(text.contains(from), "{text}");
        self.replace(&text.replace(from, to));
    }

    /// Puts another file in its place at once: the gateway may look at any moment.
    fn replace(&self, text: &str) {
        let new = self.file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &self.file).unwrap();
    }

    /// Says Hello with this token, as soon as the gateway knows the file as it is now.
    async fn knock(&self, token: &str, hello: &Hello) -> Result<ByHand, Rejected> {
        self.settle().await;
        self.knock_with(&[&format!("Bearer {token}")], hello).await
    }

    async fn knock_with(&self, authorization: &[&str], hello: &Hello) -> Result<ByHand, Rejected> {
        ByHand::knock(self.gateway.address, None, authorization, hello).await.unwrap()
    }

    /// For one who is not known the file is looked at again, at most every tenth of a second: after it, who comes has it
    /// read.
    async fn settle(&self) {
        sleep(Duration::from_millis(150)).await; // waits because a look before that would be of the file as it was
    }

    /// For all others it is looked at at most twice a second: after it, who comes has it read.
    async fn settle_all(&self) {
        sleep(Duration::from_millis(600)).await; // waits because a look before that would be of the file as it was
    }

    async fn stop(self) {
        end(self.gateway).await;
    }
}

/// Ends it with whoever is still there.
async fn end(gateway: TestGateway) {
    timeout(PATIENCE, gateway.begin_stop()).await.unwrap().unwrap().unwrap();
}

/// May register the service of these tests.
fn rule(name: &str) -> RegistrationRule {
    RegistrationRule::new(name).services(["myservice.*"])
}

fn hello(id: &str) -> Hello {
    ByHand::introduction(id, 16).unwrap()
}

/// The gateway's Close.
async fn closed(instance: &mut ByHand) -> Close {
    match timeout(PATIENCE, instance.event()).await {
        Ok(Ok(Event::Closed(close))) => close,
        other => panic!("no Close, but {other:?}"),
    }
}

/// The reason and the text of a rejection.
fn said(knocked: Result<ByHand, Rejected>) -> (RejectReason, String) {
    match knocked {
        Ok(_) => panic!("it was let in"),
        Err(rejected) => (rejected.reason, rejected.message),
    }
}
