//! What must hold of everything that was decoded, whatever bytes it came from.
//!
//! Separate from the targets, which only turn bytes into calls: the same promises are held against
//! every transport.

pub mod agree;
pub mod memory;
pub mod promises;
pub mod rows;
