//! The front door under bad manners: slow, rude, greedy and careless clients, with good ones beside them.
//!
//! Small here; `GRAFTD_LONG=1` makes the crowds as large as they are promised to be.

mod compress;
mod crowd;
mod drain;
mod heads;
mod limits;
mod manners;
mod names;
mod overload;
mod pings;
mod races;
mod raw;
mod rights;

/// How many: a few in every run, many where it was asked for.
fn size(small: usize, long: usize) -> usize {
    if std::env::var_os("GRAFTD_LONG").is_some() { long } else { small }
}
