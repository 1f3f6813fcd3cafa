//! A version as clients and the scheduler see it, put together from what its load found.

use super::own::Own;
use super::trial::Probed;
use crate::graph::Model;
use crate::graph::rules::deterministic;
use crate::id::StageId;
use crate::model::config::Loaded;
use crate::model::probe;
use crate::model::runs::RunsCell;
use crate::model::scan::Found;
use crate::model::stage::StageName;
use crate::model::way::WayCell;
use crate::model::{ModelSpec, Rows, TensorSpec};
use crate::sched::config::StageConfig;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A version as it was found, with neither a stage nor counts yet.
pub(super) fn spec(
    found: &Found,
    own: &Own,
    model: &Model,
    probed: &Probed,
    times: &[(usize, u64)],
    runs_in: &str,
) -> ModelSpec {
    let unshared = deterministic(model).err().map(|reason| reason.to_string());
    let mut findings = BTreeMap::new();
    let mut note = |key: &str, value: String| {
        findings.insert(format!("graftd.{key}"), value);
    };
    note("digest", own.digest.to_string());
    match &probed.rows {
        Rows::Independent { how } => note("rows", format!("independent: {how}")),
        Rows::Whole { why } => note("rows", format!("requests run as they come: {why}")),
    }
    note("row_difference", format!("{:e}", probed.difference));
    note(
        "sharing",
        unshared
            .clone()
            .map_or_else(|| "equal rows are shared".into(), |why| format!("off: {why}")),
    );
    let ignored = own.notes();
    if !ignored.is_empty() {
        note("config_ignored", ignored.join("; "));
    }
    if !times.is_empty() {
        let shown = times.iter().map(|(rows, ns)| format!("{rows}: {} us", ns / 1000));
        note("batch_times", shown.collect::<Vec<_>>().join(", "));
        let (knee, top) = probe::knee(times);
        note("batch_rows", format!("{knee} nearly as good as any, {top} at most"));
    }
    note("runs_in", runs_in.to_owned());
    let axes = |specs: &[TensorSpec]| specs.iter().map(|spec| spec.axis).collect();
    ModelSpec {
        name: found.name.clone(),
        version: found.version,
        versions: vec![found.version],
        stage: StageId(0),
        digest: own.digest,
        called: StageName::whole(&found.name, found.version, own.digest),
        settings: own.settings.clone(),
        queue: own.setup.queue.clone(),
        padding: None,
        request_rows_max: own.setup.request_rows_max(),
        setup: own.setup.digest,
        output_axes: axes(&probed.outputs),
        whole_axes: probed.outputs.iter().map(|_| None).collect(),
        inputs: probed.inputs.clone(),
        outputs: probed.outputs.clone(),
        rows: probed.rows.clone(),
        unshared,
        config: Arc::default(),
        counts: Arc::default(),
        findings,
        way: WayCell::default(),
        runs: RunsCell::default(),
    }
}

pub(super) fn loaded<'a>(own: &Own, spec: &'a ModelSpec, stage: &'a StageConfig) -> Loaded<'a> {
    Loaded {
        name: &spec.name,
        inputs: &spec.inputs,
        outputs: &spec.outputs,
        rows: &spec.rows,
        stage,
        sessions: own.session.lanes,
        gpu: own.on_gpu(),
    }
}
