//! Families of served models: their bases brought up once, each member's head grafted on, and let go again.
//!
//! A member serves whole from the moment it is loaded. Its way through bases is opened only once base and head gave
//! the whole model's answers, and closed before anything on it goes, so that no request ever waits for a family.

mod facts;
mod material;
mod proof;
mod search;
pub(super) mod shelved;
mod storage;

pub(super) use facts::Told;
pub use facts::{BaseFacts, FamilyFacts, MemberFacts};
pub(super) use material::Material;
use search::{Cuts, Level, Searched};

use super::super::pool::Recipe;
use super::Loader;
use super::background::background;
use super::own::on_gpu;
use crate::digest::StageDigest;
use crate::driver::leg::{Leg, Source};
use crate::engine::onnx::SessionOptions;
use crate::graph;
use crate::graph::family;
use crate::id::StageId;
use crate::model::ModelSpec;
use crate::model::stage::StageName;
use crate::model::way::{BaseUse, Way};
use crate::rows::Storage;
use crate::sched::config::StageConfig;
use crate::sched::event::{Event, Store};
use crate::sched::reuse::Policy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a model has no way, while its way is made.
const UNDER_WAY: &str = "its base and head are being brought up and tried";

/// The digest of everything from the inputs to a base's output.
type BaseDigest = [u8; 32];

/// What is grafted onto what.
#[derive(Debug, Default)]
pub(super) struct State {
    bases: BTreeMap<BaseDigest, Grafted>,
    /// By the stage of the whole model.
    members: BTreeMap<StageId, Member>,
    /// Cuts that were tried for a member and why they are not used, so that they are not tried again.
    refused: BTreeMap<(StageId, Vec<BaseDigest>), String>,
}

/// A base that is up.
#[derive(Clone, Copy, Debug)]
struct Grafted {
    stage: StageId,
    /// How its outputs lie in memory: rounded only as long as all models on it want that.
    storage: Storage,
}

/// A model with a way through bases.
#[derive(Debug)]
struct Member {
    spec: Arc<ModelSpec>,
    /// The digests of the cuts, lowest first, as they were found.
    cuts: Vec<BaseDigest>,
    /// The same with all that is below each.
    bases: Vec<BaseDigest>,
    /// Beside them, what was found of each.
    levels: Vec<Level>,
    head: StageId,
    difference: f64,
    /// The same with base outputs rounded, where they are.
    rounded: Option<f64>,
}

impl Loader {
    /// Brings the families into agreement with what is served; one at a time.
    pub async fn settle_families(&self, served: Vec<Arc<ModelSpec>>) {
        let mut state = self.families.lock().await;
        let live: BTreeMap<StageId, &Arc<ModelSpec>> =
            served.iter().map(|spec| (spec.stage, spec)).collect();
        self.materials.lock().retain(|stage, _| live.contains_key(stage));
        self.unfit.lock().retain(|stage, _| live.contains_key(stage));
        state.refused.retain(|(stage, _), _| live.contains_key(stage));
        let Searched { wanted, mut left } = match self.search(&live).await {
            Ok(searched) => searched,
            Err(why) => return tracing::warn!("families were not looked for: {why}"),
        };
        let stale = state.members.extract_if(.., |stage, member| {
            wanted.get(stage).is_none_or(|(_, cuts)| cuts.digests != member.cuts)
        });
        let stale: Vec<Member> = stale.map(|(_, member)| member).collect();
        for (&stage, (_, cuts)) in &wanted {
            let tried = (stage, cuts.digests.clone());
            if !state.members.contains_key(&stage) {
                let why = state.refused.get(&tried).map_or(UNDER_WAY, String::as_str);
                left.insert(stage, why.to_owned());
            }
        }
        self.tell(&state, &live, &left);
        for (stage, (material, cuts)) in wanted {
            let tried = (stage, cuts.digests.clone());
            if state.members.contains_key(&stage) || state.refused.contains_key(&tried) {
                continue;
            }
            let spec = live[&stage].clone();
            match self.graft(&mut state, &spec, &material, &cuts).await {
                Ok(member) => {
                    let shown = StageDigest(*member.bases.last().unwrap_or(&[0; 32]));
                    tracing::info!(
                        "model {}:{} shares base {shown}; base and head differ from the whole by {:.1e} of its size",
                        spec.name,
                        spec.version,
                        member.difference
                    );
                    left.remove(&stage);
                    state.members.insert(stage, member);
                }
                Err(why) => {
                    tracing::warn!("model {}:{} is served whole: {why}", spec.name, spec.version);
                    left.insert(stage, why.clone());
                    state.refused.insert(tried, why);
                }
            }
            self.tell(&state, &live, &left);
        }
        self.close(&state, stale, &live).await;
        self.sweep(&mut state);
    }

    /// Closes ways that no longer are as they were found.
    async fn close(
        &self,
        state: &State,
        stale: Vec<Member>,
        live: &BTreeMap<StageId, &Arc<ModelSpec>>,
    ) {
        // Only now, so that a base that old and new ways have in common stays where it is.
        for member in stale {
            if !state.members.contains_key(&member.spec.stage) {
                // One that stays serves whole first, so that none of its requests waits for that.
                if live.contains_key(&member.spec.stage) {
                    self.need(&member.spec).await;
                }
                member.spec.way.set(None);
            }
            self.retire(member.head);
        }
    }

    /// Notes what whoever asks is told of families.
    fn tell(
        &self,
        state: &State,
        live: &BTreeMap<StageId, &Arc<ModelSpec>>,
        left: &BTreeMap<StageId, String>,
    ) {
        let unfit = self.unfit.lock().clone();
        let all = unfit.iter().chain(left);
        let named = all.filter_map(|(stage, why)| {
            Some((*stage, (facts::label(live.get(stage)?), why.clone())))
        });
        *self.told.lock() = Told::new(state, named.collect());
    }

    /// Brings up what a member's way needs, proves it, and opens it.
    async fn graft(
        &self,
        state: &mut State,
        spec: &Arc<ModelSpec>,
        material: &Arc<Material>,
        cuts: &Cuts,
    ) -> Result<Member, String> {
        let (kept, names, shelf) = (material.clone(), cuts.tensors.clone(), self.shelf.clone());
        let known: BTreeSet<BaseDigest> = state.bases.keys().copied().collect();
        let mut legs = background(move |_| shelved::legs(&shelf, &kept, &names, &known)).await?;
        let head = legs.pop().ok_or("it has no head")?;
        let mut below = [0; 32];
        let mut uses: Vec<BaseUse> = Vec::new();
        let mut bases = Vec::new();
        for (leg, level) in legs.into_iter().zip(&cuts.levels) {
            let inner = !bases.is_empty();
            let digest = if inner { family::upon(&below, &leg.digest) } else { leg.digest };
            let mut reads: Vec<usize> = leg.inputs.iter().filter_map(request_input).collect();
            let known = state.bases.get(&digest).copied();
            let base = match known {
                Some(base) => base,
                None => {
                    let facts = (digest, level.bytes_per_row.unwrap_or(0));
                    let lowest = uses.first().map(|lowest| lowest.stage);
                    let stage = self.base(&leg, material, facts, lowest).await?;
                    let base = Grafted { stage, storage: self.wished(spec) };
                    state.bases.insert(digest, base);
                    base
                }
            };
            // The output of an inner base depends on what those below it read.
            for &read in uses.last().iter().flat_map(|last| &last.reads) {
                if !reads.contains(&read) {
                    reads.push(read);
                }
            }
            let keyed_by = storage::key(digest, base.storage);
            uses.push(BaseUse { stage: base.stage, digest: StageDigest(digest), keyed_by, reads });
            bases.push(digest);
            below = digest;
        }
        let label = format!("{}:{} head", spec.name, spec.version);
        // A family lives in one process: each would cost what the runtime takes for itself.
        let lowest = uses.first().map(|lowest| lowest.stage);
        let head = self.head(&head, material, spec, (&label, lowest)).await?;
        let policy = spec.settings.sharing.unwrap_or(self.config.sharing);
        let mut way = Way { bases: uses, head, policy };
        self.need(spec).await;
        match self.proved(state, &bases, spec, &mut way, material).await {
            Ok((difference, rounded)) => {
                spec.way.set(Some(way));
                self.spare(spec, material);
                let Cuts { digests: cuts, levels, .. } = cuts.clone();
                Ok(Member { spec: spec.clone(), cuts, bases, levels, head, difference, rounded })
            }
            Err(why) => {
                self.retire(head);
                Err(why)
            }
        }
    }

    /// Has the sessions of a whole model kept, and waits until they are there.
    async fn need(&self, spec: &ModelSpec) {
        self.driver.event(Event::StageNeeded { stage: spec.stage });
        let there = self.driver.stage_serves(spec.stage);
        if tokio::time::timeout(self.config.load_timeout, there).await.is_err() {
            // Its requests wait for them, as they would for a worker that died.
            tracing::warn!(
                "model {}:{}: its whole model takes long to come back",
                spec.name,
                spec.version
            );
        }
    }

    /// Has the sessions of a whole model given back while its rows do without them.
    fn spare(&self, spec: &ModelSpec, material: &Material) {
        // What runs in the daemon shares its memory with everybody's allocator: little would come back.
        if self.pools.hosts(spec.stage) {
            self.driver.event(Event::StageSpare { stage: spec.stage, rise: material.rise });
        }
    }

    /// Lets bases go that no member stands on.
    fn sweep(&self, state: &mut State) {
        let used: BTreeSet<BaseDigest> =
            state.members.values().flat_map(|member| member.bases.iter().copied()).collect();
        for (_, base) in state.bases.extract_if(.., |digest, _| !used.contains(digest)) {
            self.retire(base.stage);
        }
    }

    async fn base(
        &self,
        leg: &family::Leg,
        material: &Material,
        (digest, output_bytes): (BaseDigest, u64),
        beside: Option<StageId>,
    ) -> Result<StageId, String> {
        let label = format!("base {}", StageDigest(digest));
        let counts = self.driver.metrics().base(&StageDigest(digest).to_string());
        let axes = std::iter::repeat_n(Some(0), leg.outputs).collect();
        let config = StageConfig { kept_in: Store::Bases, output_bytes, ..material.config.clone() };
        let canonical = leg.inputs.iter().scan(0, |next, source| {
            Some(match *source {
                family::Source::Below(number) => Source::Below(number),
                // Told by what the base reads: members may order their inputs differently.
                family::Source::Request(_) => {
                    *next += 1;
                    Source::Request(*next - 1)
                }
            })
        });
        let called = StageName::base(StageDigest(digest));
        let (counts, storage) = (Some(counts), Storage::Exact);
        let inputs = canonical.collect();
        let shape = Leg { called, inputs, output_axes: axes, counts, storage };
        self.bring_up_leg(&leg.bytes, shape, config, &material.session, (&label, beside)).await
    }

    async fn head(
        &self,
        leg: &family::Leg,
        material: &Material,
        spec: &ModelSpec,
        (label, beside): (&str, Option<StageId>),
    ) -> Result<StageId, String> {
        let inputs = leg.inputs.iter().map(|source| match *source {
            family::Source::Request(number) => Source::Request(number),
            family::Source::Below(number) => Source::Below(number),
        });
        let output_axes = spec.output_axes.clone();
        let called = spec.called.head(StageDigest(leg.digest));
        let (counts, storage) = (None, Storage::Exact);
        let shape = Leg { called, inputs: inputs.collect(), output_axes, counts, storage };
        let config = material.config.clone();
        self.bring_up_leg(&leg.bytes, shape, config, &material.session, (label, beside)).await
    }

    async fn bring_up_leg(
        &self,
        bytes: &bytes::Bytes,
        leg: Leg,
        config: StageConfig,
        session: &SessionOptions,
        (label, beside): (&str, Option<StageId>),
    ) -> Result<StageId, String> {
        let (stash, bytes) = (self.stash.clone(), bytes.clone());
        let write = move || {
            let model = graph::read(bytes.clone()).map_err(|error| error.to_string())?;
            Ok((model, stash.put(&bytes).map_err(|error| error.to_string())?))
        };
        let (model, copy) =
            background(move |_| write()).await.map_err(|why| format!("{label}: {why}"))?;
        let stage = StageId(self.stages.fetch_add(1, Ordering::Relaxed));
        let slots = u32::try_from(session.threads.max(1)).unwrap_or(1);
        let copy = Arc::new(copy);
        let key = self.cost_key(&leg.called.digest, session);
        let config = StageConfig { known: self.known(&key, &[]), ..config };
        let served = if let Some(base) = beside.filter(|&base| self.pools.hosts(base)) {
            self.driver.add_leg(stage, leg, config);
            let mut config = self.worker_config(session, &copy.file(), label);
            // Rows of the family's other members wait if the worker has to be started again.
            config.order.gives_way = false;
            let recipe = Recipe { config, warm: Vec::new(), slots, _copy: copy };
            self.pools.join(base, stage, recipe).await
        } else {
            let rehearsal = Arc::new(super::Rehearsal::new(self.config.load_timeout));
            let (host, sessions, _) =
                self.host(session, &model, (&copy.file(), label), rehearsal).await?;
            self.driver.add_leg(stage, leg, config);
            self.serve((stage, slots), (host, sessions), Vec::new(), &[], copy)
        };
        self.keep_costs(stage, key);
        if served.is_err() {
            self.retire(stage);
        }
        served.map(|()| stage)
    }

    /// Keeps what a family may need of a model that was just loaded, unless it can be of none.
    pub(super) fn keep_material(&self, spec: &ModelSpec, material: Result<Material, String>) {
        let policy = spec.settings.sharing.unwrap_or(self.config.sharing);
        let why = match material {
            _ if policy == Policy::Never => "its sharing setting says never".to_owned(),
            Ok(_) if on_gpu(&self.config.session) => "bases on GPUs are not tried yet".to_owned(),
            Ok(material) => {
                self.materials.lock().insert(spec.stage, Arc::new(material));
                return;
            }
            Err(why) => why,
        };
        tracing::debug!("model {}:{} is in no family: {why}", spec.name, spec.version);
        self.unfit.lock().insert(spec.stage, why);
    }
}

/// The number of an input of the model.
fn request_input(source: &family::Source) -> Option<usize> {
    match *source {
        family::Source::Request(number) => Some(number),
        family::Source::Below(_) => None,
    }
}
