//! A client of `grpcrouter.Admin`, which a gateway serves to its owner.

use anyhow::{anyhow, bail};
use tonic::transport::Channel;
use tonic::{Code, Status};

use self::proto::admin_client::AdminClient;
use crate::channel::connect;

/// What is generated from proto/admin.proto.
#[rustfmt::skip]
#[allow(missing_docs, missing_debug_implementations, unreachable_pub, dead_code, clippy::all, reason = "the generator's own style")]
pub(crate) mod proto {
    include!("generated/admin.rs");
}

/// Whom to ask.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct AdminArgs {
    /// Where the gateway serves its owner: what `grpcrouter gateway --admin-listen` was given
    #[arg(long, value_name = "URL", env = "GRPCROUTER_ADMIN_URL", default_value = "http://127.0.0.1:9091")]
    admin: String,
}

impl AdminArgs {
    /// # Errors
    /// Nobody answers there, and what to do.
    pub(crate) async fn connect(&self) -> anyhow::Result<AdminClient<Channel>> {
        if !self.admin.starts_with("http://") {
            bail!(
                "{:?} is no admin address: its listener speaks no TLS, write http://HOST:PORT (http://127.0.0.1:9091 with \
                 --dev)",
                self.admin
            );
        }
        let channel = connect(&self.admin, None, "the gateway's admin listener").await?;
        Ok(AdminClient::new(channel).max_decoding_message_size(MAX_ANSWER))
    }

    /// What to say of an answer that is none.
    pub(crate) fn failed(&self, status: &Status) -> anyhow::Error {
        let admin = &self.admin;
        match status.code() {
            Code::Unimplemented => anyhow!(
                "what listens at {admin} does not serve grpcrouter.Admin; start the gateway with --admin-listen ADDRESS and give \
                 that address here"
            ),
            code => anyhow!("the gateway's admin listener at {admin} answered {code:?}: {}", status.message()),
        }
    }
}

/// Ten thousand instances, each with a kilobyte of labels, and room.
const MAX_ANSWER: usize = 64 << 20;
