//! How many rows of a request went which way.

use crate::sched::reuse::Route;

/// How the rows of a request were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows from the row store.
    pub hit: u32,
    /// Rows that joined a flight.
    pub join: u32,
    /// Rows for which the whole model ran.
    pub whole: u32,
    /// Rows for which a kept base output was used.
    pub reuse: u32,
    /// Rows that took the output of a base that was in flight.
    pub follow: u32,
    /// Rows for which base and head ran.
    pub recompute: u32,
}

impl Tally {
    /// Counts a row.
    pub fn count(&mut self, route: Route) {
        *match route {
            Route::Hit => &mut self.hit,
            Route::Join => &mut self.join,
            Route::Whole => &mut self.whole,
            Route::Reuse => &mut self.reuse,
            Route::Follow => &mut self.follow,
            Route::Recompute => &mut self.recompute,
        } += 1;
    }

    /// How many rows go each way.
    pub fn routes(&self) -> impl Iterator<Item = (Route, u32)> + use<> {
        let all = [
            (Route::Hit, self.hit),
            (Route::Join, self.join),
            (Route::Reuse, self.reuse),
            (Route::Follow, self.follow),
            (Route::Recompute, self.recompute),
            (Route::Whole, self.whole),
        ];
        all.into_iter()
    }

    /// How the row with this number goes; `routes` are empty where all go alike.
    #[must_use]
    pub fn route(&self, routes: &[Route], row: usize) -> Route {
        let only = self.routes().find(|&(_, rows)| rows > 0).map_or(Route::Whole, |(r, _)| r);
        routes.get(row).copied().unwrap_or(only)
    }

    /// Rows that opened a flight.
    #[must_use]
    pub fn run(&self) -> u32 {
        self.whole + self.reuse + self.follow + self.recompute
    }
}
