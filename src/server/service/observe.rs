//! What was counted, for clients, for Prometheus and for people.

use super::Service;
use super::status::{
    CostStatus, Limits, LoadNow, ModelStatus, Status, TargetStatus, WorkerStatus, stages,
};
use crate::clock;
use crate::error::InferError;
use crate::id::StageId;
use crate::metrics::{Metrics, ModelScene, Scene};
use crate::model::{Catalog, ModelSpec, State, asked_number};
use crate::proto::ModelStatisticsResponse;
use crate::sched::cost::Learned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Batch sizes of a model whose costs are told, at most.
const COSTS_MAX: usize = 8;

impl Service {
    /// Where what happens is counted.
    #[must_use]
    pub fn counts(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The metrics as Prometheus reads them.
    #[must_use]
    pub fn metrics(&self) -> String {
        let catalog = self.catalog();
        let models = catalog.iter().map(|(model, version, state)| {
            let spec = state.ready();
            ModelScene {
                model: model.to_owned(),
                version,
                ready: spec.is_some(),
                costs: spec.map_or_else(Vec::new, |spec| self.costs(spec.stage)),
                head_costs: spec.map_or_else(Vec::new, |spec| self.head_costs(spec)),
            }
        });
        self.metrics.text(&Scene {
            load: self.driver.load(),
            models: models.collect(),
            base_costs: self.base_costs(&catalog),
            workers: self.repository.workers().len(),
            kept_bytes_max: self.driver.limits().cache_bytes,
            base_bytes_max: self.driver.limits().base_cache_bytes,
            started: self.epoch(),
        })
    }

    /// Statistics of all models, of one, or of one version; of those that answer.
    ///
    /// # Errors
    /// `NotFound` for what does not exist, `Unavailable` for a version that cannot answer now.
    pub fn statistics(
        &self,
        model: Option<&str>,
        version: Option<&str>,
    ) -> Result<ModelStatisticsResponse, InferError> {
        let catalog = self.catalog();
        let epoch = self.epoch();
        if let Some(model) = model {
            catalog.find(model, version)?;
        }
        let number = version.map(asked_number).transpose()?;
        let wanted = catalog.iter().filter(|&(name, candidate, _)| {
            model.is_none_or(|model| model == name)
                && number.is_none_or(|number| number == candidate)
        });
        let model_stats =
            wanted.filter_map(|(.., state)| Some(state.ready()?.counts.statistics(epoch)));
        Ok(ModelStatisticsResponse { model_stats: model_stats.collect() })
    }

    /// Everything that somebody wants to see who asks how the daemon is.
    #[must_use]
    pub fn status(&self) -> Status {
        let catalog = self.catalog();
        let limits = self.driver.limits();
        let load = self.driver.load();
        let (mut workers, mut resting) = (Vec::new(), Vec::new());
        for worker in self.repository.workers() {
            match worker.pid {
                Some(pid) => workers.push(WorkerStatus::new(pid, worker)),
                None => resting.extend(stages(worker.stages.into_iter().filter(|it| it.rests))),
            }
        }
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.driver.clock().now().since(crate::time::MonoTime::ZERO).as_secs(),
            ready: self.ready(),
            models: catalog
                .iter()
                .map(|(name, n, state)| self.model_status(name, n, state))
                .collect(),
            base_costs: self
                .base_costs(&catalog)
                .into_iter()
                .map(|(base, learned)| (base, costs(learned)))
                .collect(),
            passed_over: self.repository.passed_over().into_iter().map(|it| it.why).collect(),
            workers,
            resting,
            load: LoadNow {
                requests: load.requests,
                queued_rows: load.queued_rows,
                flights: load.flights,
                held_bytes: load.held_bytes,
                batches: load.batches,
                slots_used: load.slots_used,
                kept_rows: load.kept_rows,
                kept_bytes: load.kept_bytes,
                base_bytes: load.base_bytes,
                connections: self.metrics.connections(),
            },
            limits: Limits {
                slots: limits.devices.iter().map(|(_, slots)| slots).sum(),
                requests: limits.requests_max,
                rows: limits.rows_max,
                held_bytes: limits.bytes_max,
                kept_bytes: limits.cache_bytes,
                base_bytes: limits.base_cache_bytes,
                timeout_ms: self.timeout.map(millis),
            },
        }
    }

    fn model_status(&self, name: &str, version: u64, state: &State) -> ModelStatus {
        let bare = ModelStatus { name: name.to_owned(), version, ..ModelStatus::default() };
        match state {
            State::Ready(spec) => self.ready_status(bare, spec),
            State::Loading => {
                let reason = self.repository.step(name, version).to_owned();
                ModelStatus { state: "loading".to_owned(), reason, ..bare }
            }
            State::Unloading => ModelStatus { state: "unloading".to_owned(), ..bare },
            State::Absent(why) => {
                ModelStatus { state: "absent".to_owned(), reason: (*why).to_owned(), ..bare }
            }
            State::Unavailable(why) => {
                ModelStatus { state: "unavailable".to_owned(), reason: why.clone(), ..bare }
            }
        }
    }

    fn ready_status(&self, bare: ModelStatus, spec: &ModelSpec) -> ModelStatus {
        let (answered, [p50, p99]) = spec.counts.latency();
        let queue = self.driver.stage_queue(spec.stage);
        ModelStatus {
            state: "ready".to_owned(),
            findings: findings(spec),
            batch_rows_max: spec.config.max_batch_size,
            batch_sizes: spec.counts.batch_sizes(),
            answered,
            failed: spec.counts.failures(),
            p50_us: p50.map(micros),
            p99_us: p99.map(micros),
            target: target(spec),
            queued_rows: queue.map_or(0, |(rows, _)| rows),
            oldest_us: queue.map_or(0, |(_, age)| micros(age)),
            costs: costs(self.costs(spec.stage)),
            head_costs: costs(self.head_costs(spec)),
            ..bare
        }
    }

    /// What was learned of a stage's runs, of the batch sizes that it ran most often.
    fn costs(&self, stage: StageId) -> Vec<Learned> {
        self.driver.costs(stage, COSTS_MAX).unwrap_or_default()
    }

    fn head_costs(&self, spec: &ModelSpec) -> Vec<Learned> {
        spec.way.get().map_or_else(Vec::new, |way| self.costs(way.head))
    }

    /// The same of bases, by their digests: several models have one in common.
    fn base_costs(&self, catalog: &Catalog) -> BTreeMap<String, Vec<Learned>> {
        let ways = catalog.iter().filter_map(|(.., state)| state.ready()?.way.get());
        let bases: BTreeMap<String, StageId> = ways
            .flat_map(|way| way.bases.clone())
            .map(|base| (base.digest.to_string(), base.stage))
            .collect();
        bases.into_iter().map(|(digest, stage)| (digest, self.costs(stage))).collect()
    }

    /// When the daemon's clock started, since 1970.
    fn epoch(&self) -> Duration {
        let since = self.driver.clock().now().since(crate::time::MonoTime::ZERO);
        clock::wall().saturating_sub(since)
    }
}

/// How a model's answers hold its target, if it has one.
fn target(spec: &ModelSpec) -> Option<TargetStatus> {
    let target = spec.settings.latency_target?;
    let (in_time, late) = spec.counts.on_time();
    let quantile = spec.settings.latency_quantile.unwrap_or_default().into();
    Some(TargetStatus { ms: millis(target), quantile, in_time, late })
}

/// What was found of a model at load, and how its runs are spread now.
fn findings(spec: &ModelSpec) -> BTreeMap<String, String> {
    let mut findings = spec.findings.clone();
    if let Some(runs) = spec.runs.get() {
        findings.insert("graftd.sessions".to_owned(), runs.to_string());
    }
    findings
}

fn costs(learned: Vec<Learned>) -> Vec<CostStatus> {
    learned.into_iter().map(CostStatus::from).collect()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
