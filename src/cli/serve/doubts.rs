//! Settings that are right one by one and will not do together, or on this machine, what they say.

use super::{Manners, ServeArgs, variables};
use crate::cli::table::bytes;
use crate::engine::cores;
use crate::engine::onnx::Provider;
use crate::model::settings::{Settings, by_model};
use crate::sched::reuse::Policy;

/// Fewer bytes than this hold no request of any but toy models.
const BYTES_SOME: u64 = 4 << 10;

/// What the machine has.
#[derive(Clone, Copy, Debug)]
struct Machine {
    cores: usize,
    memory: u64,
}

impl Machine {
    fn here() -> Self {
        let facts = rustix::system::sysinfo();
        let memory = (facts.totalram as u64).saturating_mul(u64::from(facts.mem_unit));
        Self { cores: cores::available(), memory }
    }
}

/// A setting that is doubtful where the first is true, and what to say of it.
type Doubt = (bool, String);

impl ServeArgs {
    /// A sentence for each setting that will not do what it says, with what to do.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let machine = Machine::here();
        let doubts = self.crowded(machine).into_iter();
        let doubts = doubts.chain(self.large(machine)).chain(self.waits()).chain(self.idle());
        let doubts = doubts.filter(|(doubtful, _)| *doubtful).map(|(_, why)| why);
        let models = by_model(&self.sharing.set).into_iter();
        let doubts =
            doubts.chain(models.flat_map(|(name, set)| self.of_model(&name, &set, machine)));
        let names = std::env::vars_os().map(|(name, _)| name);
        doubts.chain(variables::unknown(&crate::cli::command(), names)).collect()
    }

    /// More at once than there are cores.
    fn crowded(&self, Machine { cores, .. }: Machine) -> Vec<Doubt> {
        let (threads, sessions) =
            (self.running.threads.unwrap_or(1), self.running.sessions.unwrap_or(1));
        vec![
            (
                threads > cores,
                format!(
                    "--threads {threads}: {} here, and the threads of a run wait for each other; set at most {cores}",
                    counted(cores)
                ),
            ),
            (
                self.on_cpu() && threads <= cores && sessions * threads > cores,
                format!(
                    "--sessions {sessions}: with {threads} to a run that is {} threads for {}, so runs slow each \
                     other down; set at most {}, or leave it out",
                    sessions * threads,
                    counted(cores),
                    cores / threads
                ),
            ),
        ]
    }

    /// More or less memory than does any good.
    fn large(&self, Machine { memory, .. }: Machine) -> Vec<Doubt> {
        let (bounds, sharing) = (&self.bounds, &self.sharing);
        let (body, queue) = (self.manners.body_bytes_max, bounds.queue_bytes);
        let kept = sharing.cache_bytes.saturating_add(sharing.base_cache_bytes);
        let wanted = kept.saturating_add(queue);
        let small = |flag: &str, bytes: u64, why: &str| {
            ((1..BYTES_SOME).contains(&bytes), format!("{flag} {bytes}: {why}"))
        };
        let fits = "hardly a request fits; sizes are bytes, or 64K, 512M, 2G";
        vec![
            small("--queue-bytes", queue, fits),
            small("--body-bytes-max", body, fits),
            small("--cache-bytes", sharing.cache_bytes, "hardly a row fits; 0 keeps none"),
            small(
                "--base-cache-bytes",
                sharing.base_cache_bytes,
                "hardly a row fits; 0 keeps none",
            ),
            (
                body > queue && queue >= BYTES_SOME,
                format!(
                    "--body-bytes-max {}: a request that large never gets past --queue-bytes {}; set them alike",
                    bytes(body),
                    bytes(queue)
                ),
            ),
            (
                wanted > memory,
                format!(
                    "--cache-bytes, --base-cache-bytes and --queue-bytes come to {}, and this machine has {}; \
                     lower them until the models fit beside them",
                    bytes(wanted),
                    bytes(memory)
                ),
            ),
        ]
    }

    /// Times and numbers that get in each other's way.
    fn waits(&self) -> Vec<Doubt> {
        let Self { sharing, bounds, manners, .. } = self;
        let most = sharing.max_batch_rows.unwrap_or(usize::MAX);
        let preferred = sharing.preferred_batch_rows.iter().max().copied().unwrap_or(0);
        let delay = sharing.queue_delay_max_us;
        let Manners {
            connections_max: connections, body_gap_ms: gap, body_timeout_ms: body, ..
        } = manners;
        let per_user = manners.connections_per_user.unwrap_or(0);
        vec![
            (
                preferred > most,
                format!(
                    "--preferred-batch-rows {preferred}: --max-batch-rows {most} allows no such batch; raise that, or \
                     leave {preferred} out"
                ),
            ),
            (
                sharing.max_batch_rows.is_some_and(|rows| rows > bounds.rows_max),
                format!(
                    "--max-batch-rows {most}: no more than --rows-max {} ever wait; raise that or lower this",
                    bounds.rows_max
                ),
            ),
            (
                most == 1 && delay > 0,
                format!(
                    "--queue-delay-max-us {delay}: rows wait for others to run with, and --max-batch-rows 1 allows \
                     none; leave one of them out"
                ),
            ),
            late(&format!("--queue-delay-max-us {delay}"), delay.into(), bounds.timeout_ms.into()),
            (
                per_user > *connections,
                format!(
                    "--connections-per-user {per_user}: --connections-max {connections} is reached first; raise that, \
                     or leave this out"
                ),
            ),
            (
                gap > body,
                format!(
                    "--body-gap-ms {}: --body-timeout-ms {} is over first; raise that or lower this",
                    gap.as_millis(),
                    body.as_millis()
                ),
            ),
        ]
    }

    /// What has no effect, or a wider one than it may seem.
    fn idle(&self) -> Vec<Doubt> {
        let Self { places, running, sharing, doors, .. } = self;
        let far = places.listen.iter().find(|address| !address.ip().is_loopback());
        let without_tcp = |flag: &str| {
            format!(
                "{flag} is about TCP clients, and without --listen there are none; leave it out"
            )
        };
        vec![
            (doors.tcp_admin && places.listen.is_empty(), without_tcp("--tcp-admin")),
            (!doors.allow_host.is_empty() && places.listen.is_empty(), without_tcp("--allow-host")),
            (
                doors.tcp_admin && far.is_some(),
                far.map_or_else(String::new, |address| {
                    format!(
                        "--tcp-admin: whoever reaches {address} may load and unload models; listen on 127.0.0.1, or \
                         leave --tcp-admin out"
                    )
                }),
            ),
            (
                running.fallback_cpu && self.on_cpu(),
                "--fallback-cpu: --provider cpu is the CPU already; name another provider, or leave it out".to_owned(),
            ),
            (
                sharing.sharing == Policy::Always && sharing.base_cache_bytes == 0,
                "--sharing always: --base-cache-bytes 0 keeps no base outputs, so only rows in flight share them; give \
                 it some memory"
                    .to_owned(),
            ),
        ]
    }

    /// The settings of one model against those of all.
    fn of_model(&self, name: &str, set: &Settings, machine: Machine) -> Vec<String> {
        let threads = set.threads.or(self.running.threads).unwrap_or(1);
        let sessions = set.sessions.unwrap_or(1);
        let timeout = set.timeout.map(|timeout| timeout.as_millis());
        let timeout = timeout.unwrap_or_else(|| self.bounds.timeout_ms.into());
        let delay = set.queue_delay.unwrap_or_default().as_micros();
        let rows = set.batch_rows_max.unwrap_or(usize::MAX);
        let cores = machine.cores;
        let own = set.threads.is_some() || set.sessions.is_some();
        let doubts = [
            (
                set.cache == Some(true) && self.sharing.cache_bytes == 0,
                format!("{name}.cache=on: --cache-bytes 0 keeps no rows; give it some memory"),
            ),
            (
                self.on_cpu() && own && threads.saturating_mul(sessions) > cores,
                format!(
                    "{name}.sessions and {name}.threads come to {} threads for {}; lower one of them",
                    threads.saturating_mul(sessions),
                    counted(cores)
                ),
            ),
            (
                rows == 1 && delay > 0,
                format!(
                    "{name}.queue_delay_max_us={delay}: {name}.max_batch_rows=1 allows no rows beside; leave one of \
                     them out"
                ),
            ),
            late(&format!("{name}.queue_delay_max_us={delay}"), delay, timeout),
        ];
        doubts.into_iter().filter(|(doubtful, _)| *doubtful).map(|(_, why)| why).collect()
    }

    fn on_cpu(&self) -> bool {
        self.running.provider == Provider::Cpu
    }
}

/// Rows that are held for longer than their requests wait; no timeout is 0.
fn late(setting: &str, delay_us: u128, timeout_ms: u128) -> Doubt {
    let why = format!(
        "{setting}: requests give up after {timeout_ms} ms, before rows that are held so long run; set less than \
         {timeout_ms}000"
    );
    (timeout_ms > 0 && delay_us >= timeout_ms * 1000, why)
}

fn counted(cores: usize) -> String {
    if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Verb};
    use clap::Parser;

    fn args(flags: &[&str]) -> Box<ServeArgs> {
        let flags = ["graftd", "serve"].iter().chain(flags);
        match Cli::try_parse_from(flags).unwrap().verb {
            Verb::Serve(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_doubtful_is_told_with_what_to_do() {
        let table: &[(&[&str], &str)] = &[
            (&["--threads=1000"], "--threads 1000: "),
            (&["--sessions=1024"], "--sessions 1024: "),
            (&["--preferred-batch-rows=4,8", "--max-batch-rows=4"], "--preferred-batch-rows 8: "),
            (&["--max-batch-rows=9", "--rows-max=8"], "--max-batch-rows 9: "),
            (
                &["--max-batch-rows=1", "--queue-delay-max-us=5"],
                "--queue-delay-max-us 5: rows wait",
            ),
            (&["--queue-delay-max-us=2000", "--timeout-ms=2"], "set less than 2000"),
            (&["--connections-per-user=9", "--connections-max=8"], "--connections-per-user 9: "),
            (&["--body-gap-ms=9", "--body-timeout-ms=8"], "--body-gap-ms 9: "),
            (&["--queue-bytes=1", "--body-bytes-max=1"], "--queue-bytes 1: "),
            (&["--cache-bytes=256"], "--cache-bytes 256: "),
            (&["--cache-bytes=1023T"], "come to 1023T"),
            (&["--body-bytes-max=2G"], "--body-bytes-max 2G: "),
            (&["--tcp-admin"], "without --listen"),
            (&["--tcp-admin", "--listen=0.0.0.0:1"], "whoever reaches 0.0.0.0:1"),
            (&["--fallback-cpu"], "--fallback-cpu: "),
            (&["--sharing=always", "--base-cache-bytes=0"], "--sharing always: "),
            (&["--cache-bytes=0", "--set=m.cache=on"], "m.cache=on: --cache-bytes 0"),
            (&["--set=m.sessions=1000"], "m.sessions and m.threads come to 1000"),
            (&["--set=m.timeout_ms=1,m.queue_delay_max_us=1000"], "m.queue_delay_max_us=1000: "),
        ];
        for (flags, expected) in table {
            let doubts = args(flags).doubts();
            assert!(doubts.iter().any(|why| why.contains(expected)), "{flags:?}: {doubts:?}");
        }
    }

    #[test]
    fn what_is_usual_is_not_doubtful() {
        let machine = Machine { cores: 2, memory: 8 << 30 };
        let usual: &[&[&str]] = &[
            &[],
            &["--sessions=2", "--queue-delay-max-us=500", "--timeout-ms=100"],
            &["--listen=0.0.0.0:8000"],
            &["--tcp-admin", "--listen=127.0.0.1:8000"],
            &["--cache-bytes=0", "--set=m.cache=off"],
        ];
        for flags in usual {
            let args = args(flags);
            let all = [args.crowded(machine), args.large(machine), args.waits(), args.idle()];
            let doubts: Vec<_> = all.iter().flatten().filter(|(doubtful, _)| *doubtful).collect();
            assert!(doubts.is_empty(), "{flags:?}: {doubts:?}");
        }
    }
}
