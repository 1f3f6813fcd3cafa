//! What a model's own files say, laid over what holds for all models.

use super::LoadConfig;
use crate::digest::StageDigest;
use crate::engine::onnx::{GraphLevel, Provider, SessionOptions, Tuning};
use crate::model::config::{self, Device, Fitted, Session, Setup};
use crate::model::runs::Origin;
use crate::model::scan::Found;
use crate::model::settings::Settings;
use crate::model::stash::Stashed;

/// A model's own settings, and what they come to.
pub(super) struct Own {
    pub setup: Setup,
    /// What is set over the daemon's own settings, by whatever means.
    pub settings: Settings,
    /// How its sessions are set up.
    pub session: SessionOptions,
    /// Who says how many there are, and of how many threads.
    pub origin: Origin,
    /// Its tensors, narrowed to what is declared.
    pub fitted: Fitted,
    /// Its content, and the settings that can change a result.
    pub digest: StageDigest,
}

impl Own {
    /// # Errors
    /// A sentence, when a declaration does not fit the model.
    pub(super) fn new(
        config: &LoadConfig,
        found: &Found,
        setup: Setup,
        stashed: &Stashed,
    ) -> Result<Self, String> {
        let typed = config.models.get(&found.name).cloned().unwrap_or_default();
        let LoadConfig { latency_target, latency_quantile, .. } = *config;
        let usual = Settings { latency_target, latency_quantile, ..Settings::default() };
        let settings = typed.over(&setup.settings).over(&usual);
        let fitted = setup.declared.fit(stashed.model.inputs(), stashed.model.outputs());
        let fitted = fitted.map_err(|why| format!("config.pbtxt: {why}"))?;
        let session = session(config, &setup.session, &settings);
        let digest = tuned(stashed.digest, &setup);
        let set = settings.threads.is_some() || settings.sessions.is_some() || config.session_set;
        let origin = if set { Origin::Set } else { Origin::Usual };
        Ok(Self { setup, settings, session, origin, fitted, digest })
    }

    /// Fields of its files that change nothing, each with the reason.
    pub(super) fn notes(&self) -> Vec<String> {
        let elsewhere = config::elsewhere(self.setup.session.device, self.on_gpu());
        let notes = self.setup.notes.iter().cloned();
        notes.chain(elsewhere.map(str::to_owned)).collect()
    }

    pub(super) fn on_gpu(&self) -> bool {
        on_gpu(&self.session)
    }
}

/// Whether sessions set up like this run on a GPU.
pub(super) fn on_gpu(session: &SessionOptions) -> bool {
    matches!(session.provider, Provider::Cuda | Provider::TensorRt)
}

fn session(config: &LoadConfig, own: &Session, settings: &Settings) -> SessionOptions {
    let Session { device, graph, parallel, inter_threads, entries } = own.clone();
    let usual = config.session.clone();
    SessionOptions {
        provider: if device == Some(Device::Cpu) { Provider::Cpu } else { usual.provider },
        threads: settings.threads.unwrap_or(usual.threads),
        lanes: settings.sessions.unwrap_or(usual.lanes).max(1),
        tuning: Tuning {
            graph: match graph {
                config::GraphLevel::Disabled => GraphLevel::Disabled,
                config::GraphLevel::Basic => GraphLevel::Basic,
                config::GraphLevel::Extended => GraphLevel::Extended,
                config::GraphLevel::All => GraphLevel::All,
            },
            parallel,
            inter_threads,
            entries,
        },
        ..usual
    }
}

/// Rows that were kept from sessions that round differently must not be found again.
fn tuned(content: StageDigest, setup: &Setup) -> StageDigest {
    let Setup { session, padding, .. } = setup;
    if session.computes_as_usual() && padding.is_empty() {
        return content;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"graftd tuned 1\0").update(&content.0).update(&[session.graph as u8]);
    for text in session.entries.iter().flat_map(|(key, value)| [key, value]) {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    // Padding may change an answer by as much as rounding does.
    hasher.update(format!("{padding:?}").as_bytes());
    StageDigest(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_change_a_result_changes_the_digest() {
        let content = StageDigest([7; 32]);
        let with = |session: Session| Setup { session, ..Setup::default() };
        let threads = Session { inter_threads: Some(3), parallel: true, ..Session::default() };
        assert_eq!(tuned(content, &with(threads)), content);
        let entry = |key: &str, value: &str| {
            let entries = vec![(key.to_owned(), value.to_owned())];
            with(Session { entries, ..Session::default() })
        };
        let level = with(Session { graph: config::GraphLevel::Basic, ..Session::default() });
        let padded = Setup { padding: vec![Default::default()], ..Setup::default() };
        let all = [level, entry("a", "bc"), entry("ab", "c"), padded, Setup::default()];
        let digests: std::collections::BTreeSet<_> =
            all.iter().map(|setup| tuned(content, setup)).collect();
        assert_eq!(digests.len(), all.len());
    }
}
