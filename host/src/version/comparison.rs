//! What follows from a comparison of the version on probation with the version before: a warning, and a rollback if the operator
//! wants one. The figures are those of `costs`.

use std::sync::atomic::Ordering;

use tracing::{error, warn};

use super::{Version, Versions};

impl Versions {
    /// Compares what a version on probation takes with what the version before takes. Warns once, and rolls back if the new version
    /// is slower than the setting allows.
    pub fn compare(&self, version: &Version) {
        let Some(probation) = &version.probation else { return };
        let before = probation.before();
        let Some(compared) = version.record.costs.compare(&before.record.costs) else { return };
        #[expect(clippy::cast_precision_loss, reason = "a factor for people")]
        let factor = compared.time_percent as f64 / 100.0;
        let (digest, digest_before) = (version.plugin.short_digest(), before.plugin.short_digest());
        if compared.slow && !probation.warned.0.swap(true, Ordering::Relaxed) {
            warn!(
                digest,
                before = digest_before,
                "the new version of the plugin takes {factor:.1} times as long for a message as the version before"
            );
            self.announce();
        }
        if compared.leaking && !probation.warned.1.swap(true, Ordering::Relaxed) {
            warn!(
                digest,
                before = digest_before,
                "the memory of the new version of the plugin grows by {} bytes with each message, that of the version before by {}",
                compared.growth_bytes,
                compared.growth_bytes_before
            );
            self.announce();
        }
        let Some(max) = probation.slowdown_max() else { return };
        if !compared.slow || compared.time_percent < u64::from(max) * 100 {
            return;
        }
        let Some(restored) = self.restore(version, probation) else { return };
        let reason = format!(
            "the new version took {factor:.1} times as long for a message as the version before, and --rollback-slowdown is {max}"
        );
        error!(
            bad = digest,
            digest = restored.plugin.short_digest(),
            generation = restored.plugin.generation(),
            messages = version.record.messages(),
            "rolled back the plugin: {reason}; the new version is not used again before SIGHUP or a restart"
        );
        self.add_rollback(version, &restored, reason, false);
    }

    /// Notes the length of the group's inbox while a version is on probation.
    pub fn observe_inbox(&self, deliveries: u64) {
        if let Some(probation) = &self.current().probation {
            probation.observe_inbox(deliveries);
        }
    }
}
