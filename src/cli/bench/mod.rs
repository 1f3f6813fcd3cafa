//! `graftd bench`: loads a server with requests, and says what it bears.

mod args;

pub use args::{AFTER_HELP, BenchArgs};

use super::exit::{Failure, Kind};
use super::traffic::{command, show};
use crate::loadgen::door::{Door, Line};
use crate::loadgen::form::{self, Form};
use crate::loadgen::run::{self, Client, Pace, Span};
use crate::model::probe;
use crate::progress::{Foot, LATE};
use crate::traffic::measured::{End, Measured};
use crate::traffic::report::Report;
use crate::traffic::study::{Subject, Told};
use crate::traffic::workload::{Ask, Source};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A request that is none of those that are measured.
const TRIED: Ask = Ask {
    at: Duration::ZERO,
    model: 0,
    row: u32::MAX as u64,
    rows: 1,
    hangs_up: false,
    deadline: None,
};

/// Measures a server and writes what was found to `out`, in lines of `width` characters.
///
/// # Errors
/// When nobody answers, or a request cannot be made up that the server takes.
pub async fn bench(
    args: &BenchArgs,
    width: Option<usize>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    args.check()?;
    let mut server = Server::prepare(args).await?;
    let rate = args.traffic.rate.or_else(|| server.source.own_rate());
    let study = args.runs.study(rate, args.target(), args.traffic.seed);
    let found = study.of(&mut server).await;
    let found = found.map_err(|why| Failure::new(Kind::Unavailable, why))?;
    let report = Report::of(command(), server.name, &study, found);
    args.answer.tell(&report, out, |out| show::report(out, &report, width))
}

/// A server that was found to take what is asked.
struct Server<'a> {
    args: &'a BenchArgs,
    client: Client,
    source: Source,
    name: String,
    foot: Foot,
}

impl<'a> Server<'a> {
    async fn prepare(args: &'a BenchArgs) -> Result<Self, Failure> {
        let recorded = args.traffic.recorded()?;
        let mut models = args.models.clone();
        if let (true, Some(trace)) = (models.is_empty(), &recorded) {
            models.extend(trace.models.iter().map(|name| (name.clone(), None)));
        }
        let span = args.runs.warm_up + args.runs.counted(None, None);
        let source = args.traffic.source(recorded, &models, span)?;
        // What makes no sense is said before anything runs.
        drop(source.traffic(args.traffic.rate, 0, 0)?);
        let unavailable = |why| Failure::new(Kind::Unavailable, why);
        let door = args.door();
        let mut line = door.connect().await.map_err(|why| {
            unavailable(format!("{why}; name the server with --socket PATH or --tcp HOST:PORT"))
        })?;
        let name = line.server().await.map_err(unavailable)?;
        let mut forms = Vec::new();
        for (model, _) in &models {
            forms.push(form(args, &door, &mut line, model).await?);
        }
        if let Some(form) = forms.iter().find(|form| source.rows_most() > 1 && !form.has_rows()) {
            let model = &form.model;
            return Err(format!("--rows: model '{model}' takes one row a request").into());
        }
        let client = Client {
            door,
            forms: forms.into(),
            connections: args.connections.into(),
            streams: args.streams.into(),
            patience: args.patience,
        };
        Ok(Self { args, client, source, name, foot: Foot::of_stderr() })
    }

    async fn send(&self, told: &Told, counted: Duration) -> Result<Measured, String> {
        let traffic = self.source.traffic(told.rate, told.seed, told.number)?;
        let answers = Arc::new(AtomicU64::new(0));
        let (seen, what) = (answers.clone(), told.what.clone());
        let text = move || format!("{what}: {} answers", seen.load(Ordering::Relaxed));
        let _shown = self.foot.show(LATE, text);
        let pace = if told.rate.is_some() { Pace::Open } else { Pace::Closed };
        let span = Span { warm_up: self.args.runs.warm_up, counted, target: self.args.target() };
        run::run(&self.client, traffic, pace, span, answers).await
    }
}

impl Subject for Server<'_> {
    async fn most(&mut self) -> Result<f64, String> {
        let what = "what is possible at all".to_owned();
        let told = Told { rate: None, seed: self.args.traffic.seed, number: 0, what };
        let measured = self.send(&told, self.args.runs.counted(None, None) / 4).await?;
        Ok(measured.rate(measured.answered))
    }

    async fn run(&mut self, told: &Told) -> Result<Measured, String> {
        let counted = self.args.runs.counted(self.source.recorded(), told.rate);
        self.send(told, counted).await
    }
}

/// Requests of a model that the server takes: the first sample of rows that it answers.
async fn form(
    args: &BenchArgs,
    door: &Door,
    line: &mut Line,
    model: &str,
) -> Result<Form, Failure> {
    let slots = line.inputs(model).await.map_err(Failure::from)?;
    let specs = form::specs(model, &slots, &args.shape)?;
    let mut said = String::new();
    for sample in probe::samples(&specs) {
        let form = Form::new(model, &specs, sample, args.parameters());
        // Where the line broke, the next sample would be told of that and of nothing else.
        let end = match door.connect().await {
            Ok(mut line) => line.infer(door.request(&form, &TRIED)).await,
            Err(why) => End::Broken(why),
        };
        match end {
            End::Answered | End::HungUp => return Ok(form),
            End::Refused(why) | End::Broken(why) => said = why,
        }
    }
    Err(format!(
        "model '{model}' takes no request that was made up for it; the last answer was \"{said}\"; give the shapes of \
         its rows with --shape INPUT=N,N"
    )
    .into())
}
