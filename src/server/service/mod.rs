//! One function per meaning; REST and gRPC are codecs around these.

mod account;
mod classes;
mod decisions;
pub mod explain;
pub mod families;
mod models;
mod observe;
mod regions;
mod settings;
pub mod status;

use super::record::Recorder;
use super::regions::Regions;
use super::rights::Peer;
use crate::driver::{Call, Driver, Reply};
use crate::error::{ErrorKind, InferError};
use crate::metrics::Metrics;
use crate::model::check::{self, Checked, Options};
use crate::model::padding::{self, Cut};
use crate::model::{Catalog, ModelSpec, State, TensorSpec};
use crate::repository::Repository;
use crate::request::{
    InferRequest, InferResponse, Input, ModelMetadata, Output, Parameter, Parameters,
    ServerMetadata,
};
use crate::rows::assemble;
use crate::sched::event::{Outcome, Refusal, Tally};
use crate::tensor::{OutputTensor, Shape};
use crate::time::shown;
use account::{Account, Refusals, Seen};
use decisions::Decision;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;

/// The protocol's extensions that are there, by the names that Triton gives them.
const EXTENSIONS: [&str; 9] = [
    "binary_tensor_data",
    "classification",
    "logging",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
    SHARED_MEMORY,
    "trace",
];

/// The one of them that can be switched off.
const SHARED_MEMORY: &str = "system_shared_memory";

/// How a call was put into bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// HTTP with JSON, and tensors in JSON or after it.
    Rest,
    /// Messages over gRPC.
    Grpc,
}

impl Codec {
    /// Its name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Grpc => "grpc",
        }
    }
}

/// What the transport knows of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Who asks.
    pub peer: Peer,
    /// In which form.
    pub codec: Codec,
    /// How long the transport says that the caller waits.
    pub timeout: Option<Duration>,
}

/// What the daemon offers, whatever the transport.
#[derive(Debug)]
pub struct Service {
    driver: Arc<Driver>,
    metrics: Arc<Metrics>,
    repository: Arc<Repository>,
    regions: Regions,
    settings: settings::Settings,
    refusals: Refusals,
    decisions: decisions::Ring,
    draining: AtomicBool,
    timeout: Option<Duration>,
    recorder: Option<Recorder>,
}

impl Service {
    /// A service of what a repository serves; `timeout` is what calls get that name none.
    #[must_use]
    pub fn new(
        driver: Arc<Driver>,
        metrics: Arc<Metrics>,
        repository: Arc<Repository>,
        regions: Regions,
        timeout: Option<Duration>,
    ) -> Self {
        Self {
            driver,
            metrics,
            repository,
            regions,
            settings: settings::Settings::default(),
            refusals: Refusals::default(),
            decisions: decisions::Ring::default(),
            draining: AtomicBool::new(false),
            timeout,
            recorder: None,
        }
    }

    /// The same, with a recorder that sees what comes.
    #[must_use]
    pub fn recording(self, recorder: Option<Recorder>) -> Self {
        Self { recorder, ..self }
    }

    /// Writes what was recorded and not yet written.
    pub fn finish_record(&self) {
        self.recorder.iter().for_each(Recorder::finish);
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.repository.served().catalog()
    }

    /// Says that no more requests are taken.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
        self.repository.served().touch();
    }

    /// One item now and one whenever the state of the daemon or of a model may have changed.
    pub fn changes(&self) -> impl Stream<Item = ()> + use<> {
        WatchStream::new(self.repository.served().changes())
    }

    /// Whether the daemon takes requests and has tried every model.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.repository.started() && !self.draining.load(Ordering::Acquire)
    }

    /// What the server says of itself.
    #[must_use]
    pub fn server(&self) -> ServerMetadata {
        ServerMetadata {
            name: "graftd".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: self.extensions(),
        }
    }

    fn extensions(&self) -> Vec<String> {
        let there = |name: &&str| self.regions.on() || *name != SHARED_MEMORY;
        EXTENSIONS.into_iter().filter(there).map(str::to_owned).collect()
    }

    /// What a model says of itself.
    ///
    /// # Errors
    /// `NotFound` or `Unavailable`.
    pub fn model(&self, model: &str, version: Option<&str>) -> Result<ModelMetadata, InferError> {
        let catalog = self.catalog();
        let mut metadata = catalog.find(model, version)?.metadata();
        let versions = catalog.models.get(model).into_iter().flatten();
        metadata.versions = versions.map(|(number, _)| number.to_string()).collect();
        Ok(metadata)
    }

    /// Whether a model answers.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn model_ready(&self, model: &str, version: Option<&str>) -> Result<bool, InferError> {
        let catalog = self.catalog();
        let (_, state) = catalog.version(model, version)?;
        let State::Ready(spec) = state else { return Ok(false) };
        Ok(self.repository.healthy(spec) && !self.draining.load(Ordering::Acquire))
    }

    /// Whether a model's requests are cut into rows.
    #[must_use]
    pub fn cuts_rows(&self, model: &str, version: Option<&str>) -> bool {
        self.catalog().find(model, version).is_ok_and(|spec| spec.cuts_rows())
    }

    /// One inference.
    ///
    /// # Errors
    /// Whatever is wrong with the request, the model or the moment.
    pub async fn infer(
        &self,
        request: InferRequest<Input>,
        context: Context,
    ) -> Result<InferResponse, InferError> {
        let (request, places) = self.take_shared(request, &context.peer).await?;
        places.put(self.infer_tensors(request, context).await?)
    }

    async fn infer_tensors(
        &self,
        mut request: InferRequest,
        context: Context,
    ) -> Result<InferResponse, InferError> {
        let start = self.driver.clock().now();
        let mut refused = None;
        // A version that is replaced between look-up and submission is looked up once more.
        for _ in 0..2 {
            let found = self.catalog().find(&request.model, request.version.as_deref()).cloned();
            let spec = found.inspect_err(|error| self.count_unplaced(error))?;
            let account = Account { service: self, spec: &spec, context, start };
            let rows_max = self.driver.limits().rows_max;
            let checked = check::check(&request, &spec, context.peer.tenant, rows_max)
                .inspect_err(|error| account.invalid(&request.id, error))?;
            let call = self.call(&spec, &checked, context);
            if let Some(recorder) = &self.recorder {
                recorder.saw(start, &spec, &checked, call.timeout);
            }
            let reply = self.driver.call(call).await;
            if let Outcome::Refused { refusal: refusal @ Refusal::NoStage, .. } = reply.outcome {
                refused = Some((spec, refusal));
                continue;
            }
            let seen = Seen::new(&reply, &checked);
            let mut answer = respond(&mut request, &spec, &checked, &reply);
            let id = answer.as_ref().map_or(request.id.as_str(), |answer| &answer.id);
            let ended = account.close(id, &seen, &answer);
            let asked = (&*spec, context.peer.tenant);
            let decision = Decision::new(asked, (id, &seen, reply), answer.as_ref().err(), ended);
            if let (true, Ok(answer)) = (checked.options.explain, &mut answer) {
                self.tell_why(&decision, answer)?;
            }
            self.decisions.push(decision);
            return answer;
        }
        if let Some((spec, refusal)) = refused {
            spec.counts.refused(&refusal, self.driver.clock().now().since(start));
        }
        let text = format!("model '{}' is being replaced; try again", request.model);
        Err(InferError::new(ErrorKind::Unavailable, text).retry_after(Duration::from_secs(1)))
    }

    fn call(&self, spec: &Arc<ModelSpec>, checked: &Checked, context: Context) -> Call {
        let Options { priority, timeout: asked, .. } = checked.options;
        let usual = spec.settings.timeout.or(self.timeout);
        Call {
            spec: spec.clone(),
            inputs: checked.inputs.clone(),
            keys: checked.keys.clone(),
            class: checked.class,
            whole: checked.whole,
            sharing: checked.options.sharing,
            priority,
            timeout: spec.queue.timeout(priority, asked, context.timeout, usual),
            target: spec.settings.latency_target,
            way: checked.way.clone(),
            path: checked.path.clone(),
        }
    }
}

fn respond(
    request: &mut InferRequest,
    spec: &ModelSpec,
    checked: &Checked,
    reply: &Reply,
) -> Result<InferResponse, InferError> {
    let tally = match &reply.outcome {
        Outcome::Complete(tally) => tally,
        other => return Err(refused(other, spec, checked)),
    };
    let batched = spec.config.max_batch_size > 0;
    let formed = |(place, &index): (usize, &usize)| {
        let (port, wanted) = (&spec.outputs[index], request.outputs.get(place));
        let output = output(port, index, reply, &checked.cuts)?;
        Ok(Output::Sent(classes::formed(output, wanted, port.labels.as_deref(), batched)))
    };
    let outputs = checked
        .outputs
        .iter()
        .enumerate()
        .map(formed)
        .collect::<Result<_, String>>()
        .map_err(|why| InferError::new(ErrorKind::ModelFailed, why))?;
    let mut parameters = Parameters::new();
    if checked.options.routes {
        let route = |row| tally.route(&reply.routes, row).word();
        let text = (0..reply.rows.len()).map(route).collect::<Vec<_>>().join(",");
        parameters.insert("graftd_rows".to_owned(), Parameter::Text(text));
    }
    Ok(InferResponse {
        model: std::mem::take(&mut request.model),
        version: spec.version.to_string(),
        id: std::mem::take(&mut request.id),
        parameters,
        route: routes(tally),
        outputs,
    })
}

/// How many rows went which way; those through bases are told apart where there are any.
fn routes(tally: &Tally) -> String {
    let Tally { hit, join, whole, reuse, follow, recompute } = *tally;
    let mut text = format!("hit={hit} join={join} run={}", tally.run());
    if reuse + follow + recompute > 0 {
        text += &format!(" whole={whole} reuse={reuse} follow={follow} recompute={recompute}");
    }
    text
}

/// One output, as long as the request and in the shape that clients see.
fn output(
    port: &TensorSpec,
    index: usize,
    reply: &Reply,
    cuts: &[Cut],
) -> Result<OutputTensor, String> {
    let output = padding::cut_output(assemble(&port.name, index, &reply.rows)?, cuts, index)?;
    let Some(wire) = &port.wire else { return Ok(output) };
    let shape = wire.to_client(&output.shape.0).ok_or_else(|| {
        format!("output '{}' has shape {}, which its reshape does not fit", port.name, output.shape)
    })?;
    Ok(OutputTensor { shape: Shape(shape), ..output })
}

/// What a caller is told whose request did not complete.
fn refused(outcome: &Outcome, spec: &ModelSpec, checked: &Checked) -> InferError {
    let model = &spec.name;
    match outcome {
        Outcome::Refused { refusal, .. } if let Some(text) = never(refusal, checked) => {
            InferError::new(ErrorKind::TooLarge, text)
        }
        Outcome::Refused { refusal, retry_after } => {
            let error = refusal_error(refusal, model);
            InferError { retry_after: *retry_after, ..error }
        }
        Outcome::Shed { expected, left, retry_after } => {
            let refusal = Refusal::Target { expected: *expected, left: *left };
            refusal_error(&refusal, model).retry_after(*retry_after)
        }
        Outcome::Expired => InferError::new(
            ErrorKind::DeadlineExceeded,
            format!("model '{model}' did not answer before the request's deadline"),
        ),
        Outcome::Failed(failure) => {
            InferError::new(ErrorKind::ModelFailed, failure.message.to_string())
        }
        Outcome::Crashed => InferError::new(
            ErrorKind::ModelCrashed,
            format!(
                "running this input on model '{model}' ended its process; other requests are not affected"
            ),
        ),
        Outcome::Quarantined => InferError::new(
            ErrorKind::ModelCrashed,
            format!(
                "this input ended the process of model '{model}' lately and is not tried again yet"
            ),
        ),
        Outcome::Complete(_) => InferError::new(ErrorKind::Internal, "complete, yet refused"),
    }
}

/// Why a refused request would be refused by an idle daemon too; none where waiting may help.
fn never(refusal: &Refusal, checked: &Checked) -> Option<String> {
    let Refusal::Bytes { limit, .. } = *refusal else { return None };
    let rows = checked.keys.iter().collect::<BTreeSet<_>>().len();
    let bytes = (checked.inputs.row_bytes() as u64).saturating_mul(rows as u64);
    (bytes > limit).then(|| {
        format!(
            "the request has {bytes} bytes in its rows; {limit} may wait or run, the limit of \
             --queue-bytes; send it in parts"
        )
    })
}

fn refusal_error(refusal: &Refusal, model: &str) -> InferError {
    let overloaded = |text: String| InferError::new(ErrorKind::Overloaded, text);
    match refusal {
        Refusal::Requests { limit } => {
            overloaded(format!("{limit} requests are in flight, the limit of --requests-max"))
        }
        Refusal::Rows { held, limit } => {
            overloaded(format!("{held} rows wait or run; the limit of --rows-max is {limit}"))
        }
        Refusal::Queue { held, limit } => overloaded(format!(
            "{held} rows wait for model '{model}'; its max_queue_size is {limit}"
        )),
        Refusal::Bytes { held, limit } => overloaded(format!(
            "rows of {held} bytes wait or run; the limit of --queue-bytes is {limit}"
        )),
        Refusal::Waiters { limit } => {
            overloaded(format!("{limit} requests wait for one row already"))
        }
        Refusal::Infeasible { expected, left } => InferError::new(
            ErrorKind::DeadlineExceeded,
            format!(
                "model '{model}' would need {} and the deadline is in {}; not tried",
                shown(*expected),
                shown(*left)
            ),
        ),
        Refusal::Target { expected, left } => overloaded(format!(
            "model '{model}' would need {} and its latency target leaves {}; not run",
            shown(*expected),
            shown(*left)
        )),
        Refusal::Draining => InferError::new(
            ErrorKind::ShuttingDown,
            "the daemon is stopping; ask another, or later",
        ),
        Refusal::NoStage => {
            InferError::new(ErrorKind::Unavailable, format!("model '{model}' is being replaced"))
        }
    }
}
