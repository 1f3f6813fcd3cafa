//! How something that serves is measured: runs at a rate, each with other requests, or a search for the highest rate.

use super::measured::Measured;
use super::report::{Run, spread};
use super::search::Search;
use std::time::Duration;

/// How exactly a search finds the rate, as a share of it.
const PRECISION: f64 = 0.04;
/// How far a rate is taken down that does not hold when it is run again, and how often.
const STEP_DOWN: f64 = 0.95;
const STEPS_DOWN: usize = 6;
/// Runs of a search have smaller numbers than this, those that count larger ones.
const COUNTED: u32 = 1 << 16;

/// Something that serves: a server, or one that is imagined.
pub trait Subject {
    /// Requests a second that it answers at most, roughly.
    ///
    /// # Errors
    /// A sentence, when it does not answer.
    fn most(&mut self) -> impl Future<Output = Result<f64, String>>;

    /// One run.
    ///
    /// # Errors
    /// A sentence, when it does not answer.
    fn run(&mut self, run: &Told) -> impl Future<Output = Result<Measured, String>>;
}

/// What a run is told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Requests a second; none for as many as are answered.
    pub rate: Option<f64>,
    /// What all chance follows from.
    pub seed: u64,
    /// Its number: runs of other numbers ask for other new rows.
    pub number: u32,
    /// What it is, for whoever watches.
    pub what: String,
}

/// What is to be found.
#[derive(Clone, Debug)]
pub struct Study {
    /// The rate of the runs; none for as many as are answered.
    pub rate: Option<f64>,
    /// The highest rate is looked for at which the target holds.
    pub search: bool,
    /// The time that answers are to be there in.
    pub target: Option<Duration>,
    /// The share of answers that have to be.
    pub quantile: f64,
    /// Runs that count.
    pub repeats: u32,
    /// What the chance of the first one follows from.
    pub seed: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The highest rate that held the target, and held it again.
    pub highest_rate: Option<f64>,
    /// Runs that the search tried.
    pub tried: Vec<Run>,
    /// Runs at the rate.
    pub runs: Vec<Run>,
    /// What is to be known when figures are read.
    pub doubts: Vec<String>,
}

impl Study {
    /// Measures.
    ///
    /// # Errors
    /// A sentence, when nothing answers, or no rate holds.
    pub async fn of(&self, subject: &mut impl Subject) -> Result<Found, String> {
        let mut found = Found::default();
        if !self.search {
            found.runs = self.repeat(subject, self.rate).await?;
            found.doubts = found.runs.first().map(Run::doubts).unwrap_or_default();
            return Ok(found);
        }
        let mut rate = self.highest(subject, &mut found.tried).await?;
        for _ in 0..STEPS_DOWN {
            found.runs = self.repeat(subject, Some(rate)).await?;
            if self.holds(&found.runs) {
                found.highest_rate = Some(rate);
                break;
            }
            found.tried.extend(found.runs.iter().cloned());
            rate *= STEP_DOWN;
        }
        found.doubts = found.runs.first().map(Run::doubts).unwrap_or_default();
        if found.highest_rate.is_none() {
            let why = "the rate that was found did not hold when it was run again";
            found.doubts.push(why.to_owned());
        }
        Ok(found)
    }

    /// Whether half of the runs hold the target.
    fn holds(&self, runs: &[Run]) -> bool {
        let on_time = spread(runs.iter().map(|run| run.on_time));
        on_time.is_some_and(|(median, ..)| median >= self.quantile)
    }

    async fn highest(
        &self,
        subject: &mut impl Subject,
        tried: &mut Vec<Run>,
    ) -> Result<f64, String> {
        let mut search = Search::from(subject.most().await?.max(1.0), PRECISION);
        while let Some(rate) = search.next() {
            let number = tried.len() as u32 + 1;
            let what = format!("try {number} at {rate:.0}/s");
            let run = self.run(subject, Some(rate), number, what).await?;
            search.learn(run.on_time >= self.quantile);
            tried.push(run);
        }
        if search.found() > 0.0 {
            return Ok(search.found());
        }
        let target = self.target.unwrap_or_default();
        Err(format!("no rate holds {target:?}: single requests take longer; give --target-ms more"))
    }

    async fn repeat(
        &self,
        subject: &mut impl Subject,
        rate: Option<f64>,
    ) -> Result<Vec<Run>, String> {
        let mut runs = Vec::new();
        for number in 0..self.repeats {
            let what = format!("run {} of {}", number + 1, self.repeats);
            runs.push(self.run(subject, rate, COUNTED + number, what).await?);
        }
        Ok(runs)
    }

    async fn run(
        &self,
        subject: &mut impl Subject,
        rate: Option<f64>,
        number: u32,
        what: String,
    ) -> Result<Run, String> {
        let seed = self.seed + u64::from(number % COUNTED);
        let measured = subject.run(&Told { rate, seed, number, what }).await?;
        Ok(Run::of(&measured, seed, rate))
    }
}

#[cfg(test)]
mod tests {
    use super::super::measured::End;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Answers in time up to a rate, and at that only every other time.
    struct Fickle {
        limit: f64,
        runs: u32,
    }

    impl Subject for Fickle {
        async fn most(&mut self) -> Result<f64, String> {
            Ok(1_000.0)
        }

        async fn run(&mut self, told: &Told) -> Result<Measured, String> {
            self.runs += 1;
            let mut measured = Measured::new(Duration::ZERO, SECOND, Some(SECOND));
            let rate = told.rate.unwrap_or(1_000.0);
            let late = rate > self.limit || (told.number >= COUNTED && rate > 0.9 * self.limit);
            let took = if late { 2 * SECOND } else { SECOND / 2 };
            (0..100).for_each(|_| measured.ended(Duration::ZERO, 1, took, End::Answered));
            Ok(measured)
        }
    }

    fn study(search: bool) -> Study {
        let (target, quantile) = (Some(SECOND), 0.99);
        Study { rate: Some(10.0), search, target, quantile, repeats: 3, seed: 1 }
    }

    #[tokio::test]
    async fn a_rate_that_does_not_hold_again_is_taken_down_until_one_does() {
        let mut subject = Fickle { limit: 700.0, runs: 0 };
        let found = study(true).of(&mut subject).await.unwrap();
        let rate = found.highest_rate.unwrap();
        assert!(rate <= 630.0 && rate > 580.0, "{rate}");
        assert_eq!(found.runs.len(), 3);
        assert_eq!(subject.runs as usize, found.runs.len() + found.tried.len());
    }

    #[tokio::test]
    async fn runs_without_a_search_are_at_the_rate_with_seeds_of_their_own() {
        let found = study(false).of(&mut Fickle { limit: 700.0, runs: 0 }).await.unwrap();
        let seeds: Vec<u64> = found.runs.iter().map(|run| run.seed).collect();
        assert_eq!((seeds, found.highest_rate), (vec![1, 2, 3], None));
        assert!(found.runs.iter().all(|run| run.offered_rate == Some(10.0)));
    }

    #[tokio::test]
    async fn what_never_holds_is_said() {
        let why = study(true).of(&mut Fickle { limit: 0.0, runs: 0 }).await.unwrap_err();
        assert!(why.contains("--target-ms"), "{why}");
    }
}
