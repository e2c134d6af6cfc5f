//! Which settings a running host applies after a reload, and which settings need a restart.

use super::{Config, Outputs, SETTINGS, Setting};

impl Config {
    /// Applies every setting that can change while a host runs.
    pub fn take_up(&mut self, new: &Config) {
        self.plugin.clone_from(&new.plugin);
        self.consumers = new.consumers;
        self.plugin_limits = new.plugin_limits.clone();
        self.plugin_config = new.plugin_config.clone();
        self.load = new.load.clone();
        self.reload = new.reload.clone();
    }
}

/// Paths of settings with a changed value that need a restart.
pub fn needing_a_start(old: &Config, new: &Config) -> Vec<String> {
    let differs = |setting: &&Setting| (setting.get)(old) != (setting.get)(new);
    let settings = SETTINGS.iter().filter(|setting| !is_taken_up(setting)).filter(differs).map(Setting::path);
    let outputs = (old.outputs != new.outputs).then(|| Outputs::SECTION.to_owned());
    settings.chain(outputs).collect()
}

fn is_taken_up(setting: &Setting) -> bool {
    matches!(setting.section, "limits" | "load" | "reload")
        || (setting.section.is_empty() && ["plugin", "consumers"].contains(&setting.key))
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    #[test]
    fn every_setting_is_taken_up_or_needs_a_start() {
        for setting in SETTINGS {
            let (old, mut new) = (Config::default(), Config::default());
            let values = [setting.bounds().map(|(min, _)| min), setting.bounds().map(|(_, max)| max)];
            let words = match setting.kind {
                Kind::Choice(words) => words,
                Kind::Switch => &["true", "false"],
                Kind::Address => &["127.0.0.1:9090"],
                Kind::Endpoint => &["http://127.0.0.1:4318"],
                Kind::Token => &["another-token-0123"],
                Kind::List => &["another"],
                _ => &["another"],
            };
            let mut candidates = values.into_iter().flatten().chain(words.iter().copied());
            let changed = candidates
                .any(|text| (setting.set)(&mut new, text).is_ok() && (setting.get)(&new) != (setting.get)(&old));
            assert!(changed, "{}", setting.path());
            let needs_a_start = !needing_a_start(&old, &new).is_empty();
            let mut running = old.clone();
            running.take_up(&new);
            let taken_up = (setting.get)(&running) == (setting.get)(&new);
            assert!(needs_a_start != taken_up, "{}", setting.path());
        }
    }
}
