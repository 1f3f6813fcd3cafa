//! The settings of single models: what their files say, and what then holds.
//!
//! Separate from the daemon's own settings because these come with the models, in the forms that Triton's
//! model repositories use, and travel back to clients that ask for a model's configuration.

mod effective;

pub use effective::{BACKEND, FILENAME, Loaded, PLATFORM, datatype, effective};
