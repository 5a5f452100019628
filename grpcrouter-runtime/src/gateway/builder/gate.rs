//! Who may call.

use super::GatewayBuilder;
use crate::gateway::callers::Callers;

impl GatewayBuilder {
    /// Which clients may call, and how often. Default: everybody, as often as they like. It holds for
    /// [`Gateway::serve`](crate::Gateway::serve); a server of your own takes [`Callers::layer`].
    pub fn callers(mut self, callers: Callers) -> Self {
        self.callers = Some(callers);
        self
    }
}
