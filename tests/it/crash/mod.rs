//! Rows and signals that end worker processes: nothing is lost, nothing is wrong, only guilty rows fail.

mod crowd;
mod guilty;
mod hang;
mod kill;
mod load;
mod orphans;
mod replaced;
mod rim;
