//! Recorded traffic: when requests came, for which rows of which models. Who asked and what rows held is not kept.

use super::workload::Ask;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a file begins with; another number for another layout.
pub const HEAD: &[u8] = b"graftd trace 1\n";
/// Rows of a request that are read, at most.
const ROWS_MAX: usize = 1 << 20;
/// Numbers of rows stay below this, so that those that follow one do too.
const ROW_BITS: u32 = 62;

/// One entry of a file, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A model that was not named before; the first one is number 0.
    Model {
        /// Its name.
        name: String,
    },
    /// A request.
    Ask {
        /// Microseconds since the one before.
        after_us: u64,
        /// The number of its model.
        model: u32,
        /// The beginning of each row's key: equal rows have equal ones.
        rows: Vec<[u8; 8]>,
        /// Input bytes of its largest row.
        row_bytes: u64,
        /// Within how many microseconds its answer was wanted.
        deadline_us: Option<u64>,
    },
}

impl Entry {
    /// Appends it to a file's bytes.
    pub fn put(&self, bytes: &mut Vec<u8>) {
        // Numbers, texts and lists of them: nothing here can fail to be written to memory.
        if let Ok(encoded) = postcard::to_allocvec(self) {
            bytes.extend_from_slice(&encoded);
        }
    }
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The models' names, by number.
    pub models: Vec<String>,
    /// The requests in the order in which they came.
    pub asks: Vec<Ask>,
    /// The last entry is not whole, as where whoever wrote it was ended.
    pub cut_short: bool,
}

impl Trace {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// A sentence, when this is no such file.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let wrong = "no recorded traffic; expected what graftd serve --record FILE wrote";
        let mut rest = bytes.strip_prefix(HEAD).ok_or(wrong)?;
        let mut trace = Self::default();
        let mut at = Duration::ZERO;
        while !rest.is_empty() {
            match postcard::take_from_bytes(rest) {
                Ok((entry, more)) => {
                    trace.add(entry, &mut at)?;
                    rest = more;
                }
                Err(postcard::Error::DeserializeUnexpectedEnd) => {
                    trace.cut_short = true;
                    break;
                }
                Err(error) => {
                    let number = trace.models.len() + trace.asks.len() + 1;
                    return Err(format!("entry {number} is none ({error}); {wrong}"));
                }
            }
        }
        Ok(trace)
    }

    fn add(&mut self, entry: Entry, at: &mut Duration) -> Result<(), String> {
        match entry {
            Entry::Model { name } => self.models.push(name),
            Entry::Ask { after_us, model, rows, deadline_us, .. } => {
                let place = model as usize;
                let known = place < self.models.len() && rows.len() <= ROWS_MAX;
                let (true, Some(first)) = (known, rows.first()) else {
                    let number = self.asks.len() + 1;
                    return Err(format!(
                        "request {number} has no rows, or is for a model that was not named"
                    ));
                };
                *at = at.saturating_add(Duration::from_micros(after_us));
                self.asks.push(Ask {
                    at: *at,
                    model: place,
                    row: u64::from_le_bytes(*first) >> (64 - ROW_BITS),
                    rows: u32::try_from(rows.len()).unwrap_or(u32::MAX),
                    hangs_up: false,
                    deadline: deadline_us.map(Duration::from_micros),
                });
            }
        }
        Ok(())
    }

    /// How long it is.
    #[must_use]
    pub fn span(&self) -> Duration {
        self.asks.last().map_or(Duration::ZERO, |last| last.at)
    }

    /// Requests a second, on average.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.asks.len() as f64 / self.span().as_secs_f64().max(1e-9)
    }

    /// How often each model is asked.
    #[must_use]
    pub fn weights(&self) -> Vec<f64> {
        let mut weights = vec![0.0; self.models.len()];
        self.asks.iter().for_each(|ask| weights[ask.model] += 1.0);
        weights
    }

    /// Puts the models into the order of `names`.
    ///
    /// # Errors
    /// A sentence that names a model that is not among them.
    pub fn ordered(mut self, names: &[String]) -> Result<Self, String> {
        let places: BTreeMap<&str, usize> =
            names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
        let place = |name: &String| {
            places.get(name.as_str()).copied().ok_or_else(|| {
                format!(
                    "the recorded traffic asks for model '{name}', which is not among those given"
                )
            })
        };
        let places: Vec<usize> = self.models.iter().map(place).collect::<Result<_, _>>()?;
        self.asks.iter_mut().for_each(|ask| ask.model = places[ask.model]);
        self.models = names.to_vec();
        Ok(self)
    }

    /// The requests, at so many a second on average or as they came. Runs of other numbers ask for other rows, equal
    /// ones where these are.
    pub fn replay(
        self: Arc<Self>,
        rate: Option<f64>,
        number: u32,
    ) -> impl Iterator<Item = Ask> + use<> {
        let slower = rate.map_or(1.0, |rate| self.rate() / rate);
        let other = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mask = (1 << ROW_BITS) - 1;
        (0..self.asks.len()).map(move |place| {
            let ask = self.asks[place];
            let row = ask.row.wrapping_add(other) & mask;
            Ask { at: ask.at.mul_f64(slower), row, ..ask }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(after_us: u64, model: u32, row: u64) -> Entry {
        let (row_bytes, deadline_us) = (16, Some(5_000));
        Entry::Ask { after_us, model, rows: vec![row.to_le_bytes()], row_bytes, deadline_us }
    }

    fn file(entries: &[Entry]) -> Vec<u8> {
        let mut bytes = HEAD.to_vec();
        entries.iter().for_each(|entry| entry.put(&mut bytes));
        bytes
    }

    fn model(name: &str) -> Entry {
        Entry::Model { name: name.to_owned() }
    }

    #[test]
    fn what_was_written_is_read_and_replayed_at_any_rate() {
        let bytes =
            file(&[model("a"), ask(500, 0, 1), model("b"), ask(1_000, 1, 2), ask(500, 0, 1)]);
        let trace = Trace::read(&bytes).unwrap();
        assert_eq!((trace.models.len(), trace.asks.len(), trace.cut_short), (2, 3, false));
        assert_eq!(trace.span(), Duration::from_millis(2));
        assert_eq!(trace.weights(), [2.0, 1.0]);
        assert!((trace.rate() - 1_500.0).abs() < 1e-6);
        let shared = Arc::new(trace.clone());
        let half: Vec<Ask> = shared.clone().replay(Some(750.0), 0).collect();
        assert_eq!(half[1].at, Duration::from_millis(3));
        assert_eq!(half[0].deadline, Some(Duration::from_millis(5)));
        let other: Vec<Ask> = shared.replay(None, 7).collect();
        assert!(other[0].row == other[2].row && other[0].row != half[0].row);
        let names = ["b", "x", "a"].map(str::to_owned);
        let ordered = trace.clone().ordered(&names).unwrap();
        assert_eq!(ordered.asks.iter().map(|ask| ask.model).collect::<Vec<_>>(), [2, 0, 2]);
        let why = trace.ordered(&names[..2]).unwrap_err();
        assert!(why.contains("model 'a'"), "{why}");
    }

    #[test]
    fn what_is_cut_short_is_read_as_far_as_it_goes_and_what_is_wrong_is_said() {
        let bytes = file(&[model("a"), ask(1, 0, 1), ask(1, 0, 2)]);
        let short = Trace::read(&bytes[..bytes.len() - 3]).unwrap();
        assert_eq!((short.asks.len(), short.cut_short), (1, true));
        assert!(Trace::read(b"{}").unwrap_err().contains("--record"));
        assert!(Trace::read(&file(&[ask(1, 0, 1)])).unwrap_err().contains("not named"));
        let mut wrong = file(&[model("a")]);
        wrong.push(9);
        assert!(Trace::read(&wrong).unwrap_err().contains("entry 2"));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_trace_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let with_head = [HEAD, &bytes].concat();
            for bytes in [&bytes, &with_head] {
                if let Ok(trace) = Trace::read(bytes) {
                    let known = trace.asks.iter().all(|ask| ask.model < trace.models.len());
                    let asks = trace.asks.len();
                    prop_assert!(known && Arc::new(trace).replay(Some(10.0), 1).count() == asks);
                }
            }
        }
    }
}
