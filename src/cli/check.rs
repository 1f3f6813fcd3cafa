//! `graftd check`: settings and models looked at as a start would, and nothing served.

use super::exit::Failure;
use super::serve::ServeArgs;
use super::table::{self, Table};
use crate::daemon::Plan;
use crate::driver::load::{self, Checked};
use crate::engine::runtime;
use crate::model::scan::{self, Found, Listing};
use crate::model::settings;
use crate::model::stash::Stash;
use crate::progress::{Foot, LATE};
use crate::repository::control::Control;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// What `--help` says last.
pub const AFTER_HELP: &str = "\
Takes the flags, variables and configuration file of `graftd serve`. Each model's files and settings
are read as a load reads them, from a copy in --work-dir; ONNX Runtime is loaded, no model is run.

ROWS: independent (requests are cut into rows that share batches), to be tried (a load tries that
out), as sent (one request a run). DEDUPE: whether equal rows run once.

A problem is what will not be served or keeps the daemon from starting: exit code 1. Warnings alone
end with 0; a setting that cannot be read ends with 78, as it does for `graftd serve`.";

/// What a look showed.
#[derive(Debug, Default)]
struct Report {
    versions: Vec<Version>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

/// One version of a model.
#[derive(Debug)]
struct Version {
    found: Found,
    /// It is loaded at start.
    wanted: bool,
    checked: Option<Checked>,
}

/// Writes what would be served to `out`, in lines of `width` characters, and every problem.
///
/// # Errors
/// How many problems there are.
pub fn check(args: &ServeArgs, width: Option<usize>, out: &mut impl Write) -> Result<(), Failure> {
    let library = runtime::find(args.running.onnxruntime.as_deref());
    let mut report = Report { warnings: args.doubts(), ..Report::default() };
    let there = library.is_ok();
    report.problems.extend(library.as_ref().err().cloned());
    let plan = args.plan_with(library.unwrap_or_default()).map_err(Failure::configuration)?;
    if there {
        let tried = runtime::try_out(&plan.load.program, &plan.load.library);
        report.problems.extend(tried.err());
    }
    report.addresses(&plan);
    match scan::scan(&plan.repository.root) {
        Ok(listing) => report.models(&plan, listing),
        Err(error) => {
            let shown = plan.repository.root.display();
            let why = format!("--models {shown}: {error}; name a directory that holds models");
            report.problems.push(why);
        }
    }
    table::print(out, |out| report.write(out, &plan, width))?;
    match report.problems.len() {
        0 => Ok(()),
        1 => Err("there is a problem".to_owned().into()),
        many => Err(format!("there are {many} problems").into()),
    }
}

impl Report {
    /// Whether the daemon could listen where it should.
    fn addresses(&mut self, plan: &Plan) {
        let shown = plan.socket.display();
        if UnixStream::connect(&plan.socket).is_ok() {
            // Most likely the daemon that is to be started anew, and its addresses are taken by it.
            self.warnings.push(format!(
                "--socket {shown}: a daemon listens there now; another one starts only when it has ended"
            ));
            return;
        }
        for address in &plan.listen {
            if let Err(error) = TcpListener::bind(address) {
                let why = format!("--listen {address}: {error}; choose another address or port");
                self.problems.push(why);
            }
        }
    }

    fn models(&mut self, plan: &Plan, listing: Listing) {
        for refused in listing.refused {
            // A folder that is no version costs nothing; a model that is passed over will be missed.
            let list =
                if refused.version.is_some() { &mut self.warnings } else { &mut self.problems };
            list.push(refused.why);
        }
        let known: BTreeSet<&str> = listing.found.iter().map(|found| found.name.as_str()).collect();
        self.warnings.extend(settings::strangers(&plan.load.models, &known));
        if let Control::Explicit(named) = &plan.repository.control {
            self.problems.extend(named.strangers(&known));
        }
        let stash = match Stash::create(&plan.work_dir) {
            Ok(stash) => stash,
            Err(error) => {
                let shown = plan.work_dir.display();
                let why = format!("--work-dir {shown}: {error}; name a folder that can be written");
                return self.problems.push(why);
            }
        };
        let at = Arc::new(Mutex::new(String::new()));
        let drawn = at.clone();
        let _shown = Foot::of_stderr().show(LATE, move || drawn.lock().clone());
        for found in listing.found {
            let label = format!("{}:{}", found.name, found.version);
            *at.lock() = format!("looking at {label}");
            let wanted = plan.repository.control.wants(&found.name, true);
            let checked = match load::check(&plan.load, &stash, &found) {
                Ok(checked) => {
                    let notes = checked.notes.iter().map(|note| format!("{label}: {note}"));
                    self.warnings.extend(notes);
                    Some(checked)
                }
                Err(why) => {
                    self.problems.push(format!("{label}: {why}"));
                    None
                }
            };
            self.versions.push(Version { found, wanted, checked });
        }
    }

    fn write(&self, out: &mut impl Write, plan: &Plan, width: Option<usize>) -> io::Result<()> {
        let mut table = Table::new(&["MODEL", "VER", "FILES", "LOADED", "ROWS", "DEDUPE"]);
        for Version { found, wanted, checked } in &self.versions {
            let (files, rows, dedupe) = match checked {
                Some(Checked { rows, dedupe, .. }) => {
                    ("good", *rows, if *dedupe { "yes" } else { "no" })
                }
                None => ("bad", "-", "-"),
            };
            let loaded = if *wanted { "at start" } else { "if asked" };
            let cells = [&found.name, &found.version.to_string(), files, loaded, rows, dedupe];
            table.row(cells.map(str::to_owned).to_vec());
        }
        if !self.versions.is_empty() {
            table.write(out, width)?;
            writeln!(out)?;
        }
        self.problems.iter().try_for_each(|why| writeln!(out, "problem: {why}"))?;
        self.warnings.iter().try_for_each(|why| writeln!(out, "warning: {why}"))?;
        let wanted = || self.versions.iter().filter(|version| version.wanted);
        let good = wanted().filter(|version| version.checked.is_some()).count();
        let (socket, models) = (plan.socket.display(), plan.repository.root.display());
        writeln!(
            out,
            "{good} of {} models of {models} would load at start, for {socket}",
            wanted().count()
        )
    }
}
