//! Keeps up with the files: takes what is good, refuses what is not and says so once, and warns before a certificate ends.

use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, PoisonError},
};

use sha2::{Digest as _, Sha256};
use tracing::{info, warn};
use x509_parser::time::ASN1Time;

use super::ServerTls;
use crate::tls::TlsFileError;

/// What was taken and what was said.
pub(super) struct Told {
    /// The state of the files that is in use.
    taken: Digest,
    /// A state that cannot be used, seen once. Files are often written one after the other.
    doubted: Option<Digest>,
    /// A state that cannot be used, and was complained of.
    refused: Option<Digest>,
    /// When the certificate in use ends.
    expiry: ASN1Time,
    /// When it was last said that it ends soon, in seconds since 1970.
    warned: i64,
}

type Digest = [u8; 32];

impl Told {
    pub(super) fn new(taken: Digest, expiry: ASN1Time) -> Self {
        Self { taken, doubted: None, refused: None, expiry, warned: 0 }
    }

    /// Whether to complain of a state that cannot be used: always to who asks; else once, and if it is there twice.
    fn refuse(&mut self, state: Digest, asked: Asked) -> bool {
        let news = self.refused != Some(state) && self.doubted == Some(state);
        let complain = asked == Asked::ByHand || news;
        self.doubted = Some(state);
        if complain {
            self.refused = Some(state);
        }
        complain
    }

    /// Whether to warn now that the certificate ends soon: once a day.
    fn warn_of_end(&mut self, now: i64) -> bool {
        let due = self.expiry.timestamp() - now < SOON && now - self.warned >= DAY;
        if due {
            self.warned = now;
        }
        due
    }
}

/// Who wants the files to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    ByHand,
    ByTheClock,
}

/// What a look at the files found.
enum Found {
    /// What is in use, or what was complained of already.
    Nothing,
    /// Taken.
    Renewed(ASN1Time),
    Unusable(TlsFileError),
}

impl ServerTls {
    /// Reads the files again, now. What cannot be used changes nothing.
    pub(crate) fn reload(&self) -> Result<(), TlsFileError> {
        match self.look(Asked::ByHand) {
            Found::Unusable(error) => {
                complain(&error);
                Err(error)
            }
            Found::Renewed(expiry) => {
                praise(expiry);
                Ok(())
            }
            Found::Nothing => Ok(()),
        }
    }

    /// Looks at the files now and then, for good.
    pub(crate) async fn keep(self: &Arc<Self>) -> Infallible {
        let every = self.settings.reload_every;
        if every.is_zero() {
            return pending().await;
        }
        loop {
            self.warn_of_end();
            tokio::time::sleep(every).await;
            let tls = self.clone();
            match tokio::task::spawn_blocking(move || tls.look(Asked::ByTheClock)).await {
                Ok(Found::Renewed(expiry)) => praise(expiry),
                Ok(Found::Unusable(error)) => complain(&error),
                Ok(Found::Nothing) | Err(_) => {}
            }
        }
    }

    fn look(&self, asked: Asked) -> Found {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, read) = match self.settings.read() {
            Ok(files) => (files.digest(), Ok(files)),
            Err(error) => (Sha256::digest(error.to_string()).into(), Err(error)),
        };
        if read.is_ok() && state == told.taken {
            (told.doubted, told.refused) = (None, None);
            return Found::Nothing;
        }
        match read.and_then(|files| self.settings.config(&files)) {
            Ok((config, expiry)) => {
                self.config.store(Arc::new(config));
                *told = Told::new(state, expiry);
                Found::Renewed(expiry)
            }
            Err(error) if told.refuse(state, asked) => Found::Unusable(error),
            Err(_) => Found::Nothing,
        }
    }

    fn warn_of_end(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.warn_of_end(ASN1Time::now().timestamp()) {
            warn!(not_after = %told.expiry, "the TLS certificate has ended or ends within a week: clients and instances refuse it then; renew the files, they are read by themselves");
        }
    }
}

fn praise(expiry: ASN1Time) {
    info!(not_after = %expiry, "TLS certificates read again; new connections get them");
}

fn complain(error: &TlsFileError) {
    warn!(%error, "changed TLS files cannot be used; the certificates from before stay in use");
}

const DAY: i64 = 24 * 60 * 60;

/// Certificates that renew themselves are renewed weeks before.
const SOON: i64 = 7 * DAY;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn told() -> Told {
        Told::new([0; 32], ASN1Time::from_timestamp(1_000 * DAY).unwrap())
    }

    #[test]
    fn what_is_looked_at_while_it_is_written_is_not_complained_of() {
        let mut told = told();

        let complaints = [1, 2, 3, 3, 3, 4, 4].map(|state| told.refuse([state; 32], Asked::ByTheClock));

        assert_eq!(complaints, [false, false, false, true, false, false, true]);
    }

    #[test]
    fn who_asks_by_hand_is_told_at_once_and_the_clock_says_it_no_second_time() {
        let mut told = told();

        assert!(told.refuse([1; 32], Asked::ByHand));
        assert!(told.refuse([1; 32], Asked::ByHand));
        assert!(!told.refuse([1; 32], Asked::ByTheClock));
    }

    #[test]
    fn a_certificate_that_ends_within_a_week_is_warned_of_once_a_day() {
        let mut told = told();

        let days = [900, 992, 993, 994, 995, 1_001];
        let warnings = days.map(|day| told.warn_of_end(day * DAY + 1));

        assert_eq!(warnings, [false, false, true, true, true, true]);
        assert!(!told.warn_of_end(1_001 * DAY + 3_600));
    }
}
