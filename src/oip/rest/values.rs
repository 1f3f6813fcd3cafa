//! Tensor elements as JSON values and as wire bytes, exactly, in both directions.
//!
//! Separate from the messages around them, since this is where a value could silently change.
//! Elements go straight between JSON text and the tensor's bytes; no tree and no list of numbers
//! lies between.
//!
//! # Invariants
//! - Integers are whole numbers in the datatype's range, read and written as integers of that
//!   width.
//! - `FP32` and `FP64` are read from their digits at their own precision and printed as the
//!   shortest text that reads back as the same bits, also for a reader that knows only doubles.
//! - What JSON has no number for is written as the bare words `NaN`, `Infinity` and `-Infinity`, as
//!   Python's `json` does and reads. Strict parsers refuse them: their users ask for binary data.
//!   The same words are accepted in requests. A finite number that the datatype cannot hold is
//!   refused rather than turned into an infinity.
//! - `BOOL` is `true` or `false`, never a number; `BYTES` elements are strings, as UTF-8.
//! - `FP16` and `BF16` are refused with the advice to use binary data, as Triton does.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub(super) use read::{Elements, read};
pub(super) use write::{double, integer, string, write};
