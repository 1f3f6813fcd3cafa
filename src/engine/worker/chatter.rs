//! What a worker writes to its standard error: read as it comes, put into the daemon's log by line.
//!
//! A worker that shared the daemon's own standard error would stand still where nobody reads that, and what a
//! model's library writes could not be told from what the daemon says. Here it is always read; lines are cut,
//! and of too many only the number is told.

use crate::clock::Clock;
use crate::time::MonoTime;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// Bytes of a line; the rest of a longer one makes further lines.
const LINE_BYTES_MAX: u64 = 1024;
/// Lines in a row that are told.
const LINES_MAX: u32 = 50;
/// How often as many may be told again.
const PERIOD: Duration = Duration::from_secs(10);

/// Tells all that is written until the writer is gone.
pub(super) async fn relay(from: impl AsyncRead + Unpin, tell: impl Fn(&str)) {
    let clock = Clock::start();
    let mut from = BufReader::new(from);
    let mut share = Share::default();
    let mut line = Vec::new();
    // A pipe that cannot be read has nothing more to say.
    while let Ok(1..) = (&mut from).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
        let (passed_over, may) = share.take(clock.now());
        told_over(passed_over, &tell);
        if may {
            tell(String::from_utf8_lossy(&line).trim_end());
        }
        line.clear();
    }
    told_over(share.passed_over, &tell);
}

fn told_over(lines: u64, tell: &impl Fn(&str)) {
    if lines > 0 {
        tell(&format!("... and {lines} lines more, which are passed over"));
    }
}

/// How much of the log one worker has used.
#[derive(Default)]
struct Share {
    since: Option<MonoTime>,
    told: u32,
    passed_over: u64,
}

impl Share {
    /// How many lines went by untold before this one, where that is to be told now; and whether this one is.
    fn take(&mut self, now: MonoTime) -> (u64, bool) {
        let since = *self.since.get_or_insert(now);
        let mut untold = 0;
        if now.since(since) >= PERIOD {
            untold = std::mem::take(&mut self.passed_over);
            (self.since, self.told) = (Some(now), 0);
        }
        let may = self.told < LINES_MAX;
        match may {
            true => self.told += 1,
            false => self.passed_over += 1,
        }
        (untold, may)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    async fn told(written: &[u8]) -> Vec<String> {
        let lines = Mutex::new(Vec::new());
        relay(written, |line| lines.lock().unwrap().push(line.to_owned())).await;
        lines.into_inner().unwrap()
    }

    #[tokio::test]
    async fn lines_are_cut_and_whatever_is_in_them_is_text() {
        assert_eq!(told(b"").await, [""; 0]);
        assert_eq!(told(b"one\r\n\xff\nlast").await, ["one", "\u{fffd}", "last"]);
        let long = told("x".repeat(2500).as_bytes()).await;
        assert_eq!(long.iter().map(String::len).collect::<Vec<_>>(), [1024, 1024, 452]);
    }

    #[tokio::test]
    async fn of_a_flood_the_first_lines_are_told_and_the_others_counted() {
        let lines = told("again\n".repeat(100_000).as_bytes()).await;
        let last = lines.last().unwrap();
        assert!(last.ends_with("lines more, which are passed over"), "{last}");
        // On a slow machine the flood may last for some periods.
        let counted = |line: &String| line.split(' ').nth(2).and_then(|n| n.parse::<usize>().ok());
        let again = lines.iter().filter(|line| *line == "again").count();
        let passed_over: usize = lines.iter().filter_map(counted).sum();
        assert_eq!(again + passed_over, 100_000);
    }

    #[test]
    fn a_share_comes_back_with_time() {
        let mut share = Share::default();
        let at = |ms: u64| MonoTime::from_nanos(ms * 1_000_000);
        for _ in 0..LINES_MAX {
            assert_eq!(share.take(at(5)), (0, true));
        }
        assert_eq!(share.take(at(10_004)), (0, false));
        assert_eq!(share.take(at(10_005)), (1, true));
        assert_eq!(share.take(at(10_006)), (0, true));
    }
}
