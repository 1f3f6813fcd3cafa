//! Rows and signals that end worker processes: nothing is lost, nothing is wrong, only guilty rows fail.

mod guilty;
