//! What `graftd bench` takes, and the workload that it means.

use crate::cli::exit::{Failure, Kind};
use crate::cli::traffic::{AnswerArgs, RunArgs, TrafficArgs, millis, positive, seconds};
use crate::loadgen::door::{Door, Place, Protocol};
use crate::loadgen::form::Parameter;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// What stands below the flags in `graftd bench --help`.
pub const AFTER_HELP: &str = "\
Without --rate every connection sends its next request as soon as it has its answer (closed loop):
what the server can do at most. With --rate requests are sent at their times whether answers come or
not (open loop), and times count from when a request was to be sent. Rows are made up from their
numbers, in the shapes that the model's metadata tells.

Examples:
  graftd bench digits_digit --connections 32
  graftd bench minilm_topic minilm_route=2 --scenario s7 --rate 100 --target-ms 150
  graftd bench wine --rate 2000 --arrivals gamma:2 --popularity zipf:1.0 --html wine.html
  graftd bench --trace monday.trace --socket other.sock
  graftd bench wine --search --target-ms 5 --tcp 127.0.0.1:8001 --protocol grpc --streams 16";

/// What `graftd bench` takes.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// Models, each with how often it is asked beside the others [default: those that --trace asks for]
    #[arg(value_name = "MODEL[=WEIGHT]", value_parser = weighted)]
    #[arg(required_unless_present = "trace")]
    pub models: Vec<(String, Option<f64>)>,

    /// Unix socket of the server
    #[arg(
        long,
        value_name = "PATH",
        env = "GRAFTD_SOCKET",
        default_value = "graftd.sock",
        help_heading = "Server"
    )]
    pub socket: PathBuf,
    /// Host and port of the server, instead of a socket
    #[arg(long, value_name = "HOST:PORT", help_heading = "Server")]
    pub tcp: Option<String>,
    /// How it is spoken to
    #[arg(long, value_enum, value_name = "NAME", default_value = "http", help_heading = "Server")]
    pub protocol: Protocol,
    /// Connections
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Server")]
    pub connections: u16,
    /// Requests under way on each connection, over gRPC
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Server")]
    pub streams: u16,
    /// How long an answer is waited for, in seconds
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds, help_heading = "Server")]
    pub patience: Duration,

    /// What is asked for.
    #[command(flatten)]
    pub traffic: TrafficArgs,

    /// The shape of an input's rows, where axes vary [default: what the server takes]
    #[arg(long, value_name = "INPUT=N,N", value_parser = shape, help_heading = "Requests")]
    pub shape: Vec<(String, Vec<usize>)>,
    /// A parameter of every request, such as no_cache=true, no_dedupe=true or priority=1
    #[arg(long, value_name = "KEY=VALUE", value_parser = parameter, help_heading = "Requests")]
    pub param: Vec<(String, Parameter)>,
    /// A deadline that every request tells the server, as the parameter timeout
    #[arg(long, value_name = "MS", value_parser = millis, help_heading = "Requests")]
    pub deadline_ms: Option<Duration>,

    /// How often and how long.
    #[command(flatten)]
    pub runs: RunArgs,

    /// Where figures go.
    #[command(flatten)]
    pub answer: AnswerArgs,
}

impl BenchArgs {
    /// The server that is meant.
    #[must_use]
    pub fn door(&self) -> Door {
        let place = self.tcp.clone().map(Place::Tcp);
        let place = place.unwrap_or_else(|| Place::Unix(self.socket.clone()));
        Door { place, protocol: self.protocol }
    }

    /// The time that answers are to be there in.
    #[must_use]
    pub fn target(&self) -> Option<Duration> {
        self.runs.target_ms.or(self.deadline_ms)
    }

    /// What is sent with every request.
    #[must_use]
    pub fn parameters(&self) -> Vec<(String, Parameter)> {
        let micros = |deadline: Duration| i64::try_from(deadline.as_micros()).unwrap_or(i64::MAX);
        let deadline = self.deadline_ms.map(|deadline| Parameter::Integer(micros(deadline)));
        let deadline = deadline.map(|deadline| ("timeout".to_owned(), deadline));
        self.param.iter().cloned().chain(deadline).collect()
    }

    /// What goes together.
    ///
    /// # Errors
    /// A sentence on what does not.
    pub fn check(&self) -> Result<(), Failure> {
        let wrong = |why: &str| Err(Failure::new(Kind::Usage, why));
        if self.runs.search && self.target().is_none() {
            return wrong(
                "--search needs the time that answers are to be there in: add --target-ms MS",
            );
        }
        if self.streams > 1 && self.protocol == Protocol::Http {
            return wrong(
                "--streams above 1 needs --protocol grpc: HTTP/1.1 takes one request at a time a connection",
            );
        }
        Ok(())
    }
}

fn weighted(text: &str) -> Result<(String, Option<f64>), String> {
    match text.rsplit_once('=') {
        Some((model, weight)) if !model.is_empty() => {
            Ok((model.to_owned(), Some(positive(weight)?)))
        }
        _ => Ok((text.to_owned(), None)),
    }
}

fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let expected = || "expected an input's name, '=', and the sizes of a row".to_owned();
    let (name, sizes) = text.rsplit_once('=').ok_or_else(expected)?;
    let sizes = sizes.split(',').map(|size| size.parse().map_err(|_| expected()));
    Ok((name.to_owned(), sizes.collect::<Result<_, _>>()?))
}

fn parameter(text: &str) -> Result<(String, Parameter), String> {
    let (name, value) = text.split_once('=').ok_or("expected a name, '=', and a value")?;
    let value = match value {
        "true" => Parameter::Bool(true),
        "false" => Parameter::Bool(false),
        other => match other.parse() {
            Ok(number) => Parameter::Integer(number),
            Err(_) => Parameter::Text(other.to_owned()),
        },
    };
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::arrivals::Process;
    use crate::traffic::rows::Popularity;
    use crate::traffic::workload::{Source, Workload};
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn typed(line: &str) -> Result<BenchArgs, String> {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        let typed = Typed::try_parse_from(words).map_err(|error| error.to_string())?;
        typed.args.check().map_err(|failure| failure.message)?;
        Ok(typed.args)
    }

    fn made(args: &BenchArgs) -> Workload {
        let source = args.traffic.source(None, &args.models, Duration::from_secs(1)).unwrap();
        let Source::Made(workload) = source else { panic!("nothing was recorded") };
        workload
    }

    #[test]
    fn flags_change_what_a_scenario_says() {
        let args =
            typed("a=3 b --scenario s1 --arrivals gamma:2 --rows 2-4 --deadline-ms 20").unwrap();
        let workload = made(&args);
        assert_eq!(workload.models, [3.0, 1.0]);
        assert_eq!(workload.process, Process::Gamma { cv: 2.0 });
        assert_eq!(
            workload.popularity,
            Popularity::Zipf { keys: 10_000, exponent: 1.0, once: 0.08 }
        );
        assert_eq!(workload.rows, (2, 4));
        assert_eq!(args.target(), Some(Duration::from_millis(20)));
        assert_eq!(args.parameters(), [("timeout".to_owned(), Parameter::Integer(20_000))]);
        let args =
            typed("a --popularity zipf:1.2,50,0.5 --param no_cache=true --shape x=2,3").unwrap();
        let zipf = Popularity::Zipf { keys: 50, exponent: 1.2, once: 0.5 };
        assert_eq!(made(&args).popularity, zipf);
        assert_eq!(args.shape, [("x".to_owned(), vec![2, 3])]);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_allowed() {
        for (line, word) in [
            ("", "MODEL"),
            ("a --arrivals soon", "gamma:CV"),
            ("a --arrivals gamma:-1", "above 0"),
            ("a --arrivals bursts:1", "ON_S,OFF_S"),
            ("a --popularity zipf:x", "zipf:EXPONENT"),
            ("a --rows 3-2", "LEAST-MOST"),
            ("a --shape 3,4", "'='"),
            ("a --trace f --scenario s1", "--scenario"),
            ("a --search", "--target-ms"),
            ("a --search --target-ms 5 --rate 5", "--rate"),
            ("a --streams 2", "grpc"),
            ("a --quantile 1.5", "below 1"),
            ("a --duration 0", "above 0"),
            ("a --connections 0", "connections"),
        ] {
            let why = typed(line).unwrap_err();
            assert!(why.contains(word), "{line}: {why}");
        }
    }
}
