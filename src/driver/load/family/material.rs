//! What families need of a model once it serves: its sketch, its file, and rows that it accepts.

use crate::digest::StageDigest;
use crate::driver::load::own::Own;
use crate::driver::load::trial::Probed;
use crate::engine::onnx::SessionOptions;
use crate::graph;
use crate::graph::family::{self, Leg, Sketch};
use crate::model::ModelSpec;
use crate::model::probe::Sample;
use crate::model::stash::PrivateCopy;
use crate::sched::config::StageConfig;
use std::sync::Arc;
use std::time::Duration;

/// What families need of a model.
#[derive(Debug)]
pub(in crate::driver::load) struct Material {
    /// What the search for families looks at.
    pub sketch: Sketch,
    /// The file that it is split from.
    pub copy: Arc<PrivateCopy>,
    /// The digest of that file and all it refers to.
    pub content: StageDigest,
    /// How its sessions are set up.
    pub session: SessionOptions,
    /// How its whole stage is scheduled.
    pub config: StageConfig,
    /// Made-up rows that it accepts.
    pub sample: Sample,
    /// The seed of one that it accepts.
    pub seed: u64,
    /// How long it took to start its sessions.
    pub rise: Duration,
}

impl Material {
    /// What families may need of a model.
    ///
    /// # Errors
    /// Why it can be in none.
    pub(in crate::driver::load) fn of(
        own: &Own,
        spec: &ModelSpec,
        probed: &Probed,
        sketch: Result<Sketch, String>,
        (copy, content, config): (&Arc<PrivateCopy>, StageDigest, &StageConfig),
        rise: Duration,
    ) -> Result<Self, String> {
        if !spec.cuts_rows() {
            return Err("its requests run as they come".into());
        }
        if let Some(why) = &spec.unshared {
            return Err(why.clone());
        }
        if spec.padding.is_some() {
            return Err("its inputs are padded".into());
        }
        if !own.setup.session.computes_as_usual() {
            return Err("its sessions are set up in a way of their own".into());
        }
        let sample = probed.sample.ok_or("no made-up row was accepted")?;
        Ok(Self {
            sketch: sketch?,
            copy: copy.clone(),
            content,
            session: own.session.clone(),
            config: config.clone(),
            sample,
            seed: probed.seed,
            rise,
        })
    }

    /// The legs of its way with these cuts, lowest first.
    ///
    /// # Errors
    /// A sentence, when it cannot be split there.
    pub(super) fn split(&self, cuts: &[Vec<String>]) -> Result<Vec<Leg>, String> {
        let bytes = std::fs::read(self.copy.file()).map_err(|error| error.to_string())?;
        let model = graph::read(bytes.into()).map_err(|error| error.to_string())?;
        let cuts: Vec<&[String]> = cuts.iter().map(Vec::as_slice).collect();
        let legs = family::split(&model, &|data| self.copy.weights(data), &cuts);
        legs.map_err(|reason| reason.to_string())
    }
}
