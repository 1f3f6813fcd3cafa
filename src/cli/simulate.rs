//! `graftd simulate`: the daemon's scheduler on imagined machines, in virtual time.

use super::exit::{Failure, Kind};
use super::traffic::{AnswerArgs, RunArgs, TrafficArgs, command, show};
use crate::progress::{Foot, LATE};
use crate::simulate::fleet::Fleet;
use crate::simulate::machine::Policy;
use crate::simulate::plan::Plan;
use crate::traffic::report::Report;
use crate::traffic::workload::Source;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What stands below the flags in `graftd simulate --help`.
pub const AFTER_HELP: &str = "\
A plan names machines, what their devices run side by side, and what models cost on them: a run of
b rows takes fixed_ms + b * row_ms, and some noise. configs/simulate/ holds examples. Nothing is
loaded and no time passes but the simulation's own.

Examples:
  graftd simulate configs/simulate/two-cores.toml --rate 120 --target-ms 150
  graftd simulate configs/simulate/two-cores.toml --search --target-ms 150 --compare learned,eager,timeout
  graftd simulate configs/simulate/fleet.toml --rate 10000 --target-ms 100 --duration 60 --html fleet.html";

/// What `graftd simulate` takes.
#[derive(Clone, Debug, Args)]
pub struct SimulateArgs {
    /// The machines and models to imagine
    #[arg(value_name = "PLAN.toml")]
    pub plan: PathBuf,
    /// Policies, side by side
    #[arg(
        long,
        value_enum,
        value_name = "NAME,...",
        value_delimiter = ',',
        default_value = "learned"
    )]
    pub compare: Vec<Policy>,

    /// What is asked for.
    #[command(flatten)]
    pub traffic: TrafficArgs,
    /// How often and how long.
    #[command(flatten)]
    pub runs: RunArgs,
    /// Where figures go.
    #[command(flatten)]
    pub answer: AnswerArgs,
}

/// Simulates and writes what was found to `out`, in lines of `width` characters.
///
/// # Errors
/// When the plan cannot be read, or makes no sense with what is asked for.
pub async fn simulate(
    args: &SimulateArgs,
    width: Option<usize>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let file = args.plan.display();
    let text = std::fs::read_to_string(&args.plan);
    let text = text.map_err(|error| Failure::configuration(format!("{file}: {error}")))?;
    let plan = Plan::read(&text).map_err(|why| Failure::configuration(format!("{file}: {why}")))?;
    if args.runs.search && args.runs.target_ms.is_none() {
        let why = "--search needs the time that answers are to be there in: add --target-ms MS";
        return Err(Failure::new(Kind::Usage, why));
    }
    let recorded = args.traffic.recorded()?;
    let counted = args.runs.counted(recorded.as_ref(), args.traffic.rate);
    let source = args.traffic.source(recorded, &plan.models(), args.runs.warm_up + counted)?;
    if args.traffic.rate.or_else(|| source.own_rate()).is_none() && !args.runs.search {
        let why = "how much is to be asked? add --rate N, --trace FILE, or --search --target-ms MS";
        return Err(Failure::new(Kind::Usage, why));
    }
    let report = compared(args, &plan, &source).await?;
    args.answer.tell(&report, out, |out| show::report(out, &report, width))
}

/// What each policy makes of the same requests, one after the other.
async fn compared(args: &SimulateArgs, plan: &Plan, source: &Source) -> Result<Report, String> {
    let rate = args.traffic.rate.or_else(|| source.own_rate());
    let study = args.runs.study(rate, args.runs.target_ms, args.traffic.seed);
    let (foot, several) = (Foot::of_stderr(), args.compare.len() > 1);
    let mut all: Option<Report> = None;
    for &policy in &args.compare {
        let asked = Arc::new(AtomicU64::new(0));
        let (seen, name) = (asked.clone(), policy.name());
        let text = move || format!("{name}: {} requests", seen.load(Ordering::Relaxed));
        let _shown = foot.show(LATE, text);
        let mut fleet = Fleet {
            plan,
            placed: plan.placed(&source.models()),
            source: source.clone(),
            policy,
            target: args.runs.target_ms,
            warm_up: args.runs.warm_up,
            counted: args.runs.counted(source.recorded(), rate),
            asked: &asked,
        };
        let mut found = study.of(&mut fleet).await?;
        if several {
            let named = found.runs.iter_mut().chain(&mut found.tried);
            named.for_each(|run| run.name = policy.name());
            found
                .doubts
                .iter_mut()
                .for_each(|doubt| *doubt = format!("{}: {doubt}", policy.name()));
        }
        let name = format!("simulated from {}", args.plan.display());
        let report = Report::of(command(), name, &study, found);
        match &mut all {
            None => all = Some(report),
            Some(all) => all.join(report),
        }
    }
    all.ok_or_else(|| "no policy to simulate".to_owned())
}
