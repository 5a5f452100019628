//! No call holds more than its window on either side: what was delivered and not consumed fits.

use grpcrouter_protocol::Config;

use crate::sim::model::Call;

pub(crate) fn always(calls: &[Call], config: &Config) {
    for call in calls {
        for side in [&call.gateway, &call.instance] {
            assert!(side.held() <= config.initial_window, "{} of {}: {call:?}", side.held(), config.initial_window);
            assert!(side.capacity as u64 <= config.initial_window, "{call:?}");
        }
    }
}
