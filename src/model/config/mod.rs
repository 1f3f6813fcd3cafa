//! The settings of single models: what their files say, and what then holds.
//!
//! Separate from the daemon's own settings because these come with the models, in the forms that Triton's
//! model repositories use, and travel back to clients that ask for a model's configuration. A field that
//! cannot be honoured is refused by name, and one that changes nothing here is noted by name.
//!
//! # Invariants
//! No file makes this module panic, and no field of the message is passed over: all are taken apart by name.

mod batching;
mod effective;
mod instances;
mod labels;
mod layout;
mod line;
mod own;
mod queue;
mod rewrite;
mod session;
mod tensors;
mod triton;
mod warmup;
mod wire;

#[cfg(test)]
mod corpus;

pub use effective::{BACKEND, FILENAME, Loaded, PLATFORM, datatype, effective};
pub use layout::{Layout, layout};
pub use queue::{Policy, Queue};
pub use rewrite::{Written, rewrite};
pub use session::{Device, GraphLevel, Session};
pub use tensors::{Declared, Fitted};
pub use triton::elsewhere;
pub use warmup::Warmup;
pub use wire::Wire;

use crate::model::scan::Found;
use crate::model::settings::Settings;
use crate::model::{beneath, padding};
use crate::proto::ModelConfig;
use crate::text;
use std::path::Path;

/// The largest settings file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The file of settings in the form of Triton's model repositories.
const TRITON: &str = "config.pbtxt";
/// The file of settings that are ours alone.
const OWN: &str = "model.toml";

/// All that the files of a model say beside the model itself.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// What `config.pbtxt` declares, word for word; none without one.
    pub config: Option<ModelConfig>,
    /// What is set over the daemon's own settings.
    pub settings: Settings,
    /// The tensors as declared.
    pub declared: Declared,
    /// How sessions are set up.
    pub session: Session,
    /// What holds for requests that wait.
    pub queue: Queue,
    /// Sizes that vary and are padded.
    pub padding: Vec<padding::Declared>,
    /// Requests to be run before the model serves.
    pub warmup: Vec<Warmup>,
    /// Fields that change nothing here, each with the reason.
    pub notes: Vec<String>,
    /// The bytes of all these files; zero without any.
    pub digest: [u8; 32],
}

impl Setup {
    /// Reads the files that belong to a version's model.
    ///
    /// # Errors
    /// A sentence that names the file, the field, what is wrong and what to do.
    pub fn read(found: &Found) -> Result<Self, String> {
        let mut hasher = blake3::Hasher::new();
        let mut setup = Self::default();
        let mut files = 0;
        let (folder, own) = own_file(found);
        if found.folder().is_some()
            && let Some(text) = contents(folder, TRITON)?
        {
            files += 1;
            hasher.update(TRITON.as_bytes()).update(blake3::hash(text.as_bytes()).as_bytes());
            setup = Self::of_config(&text, &found.name)?;
            let labels = labels::read(&mut setup.declared, folder, &mut hasher);
            labels.map_err(|why| format!("{TRITON}: {why}"))?;
            let data = warmup::read(&mut setup.warmup, folder, &mut hasher);
            data.map_err(|why| format!("{TRITON}: {why}"))?;
        }
        if let Some(text) = contents(folder, &own)? {
            files += 1;
            hasher.update(OWN.as_bytes()).update(blake3::hash(text.as_bytes()).as_bytes());
            let parsed = Self::of_own(&text).map_err(|why| format!("{own}: {why}"))?;
            setup.settings = parsed.0.over(&setup.settings);
            setup.padding = parsed.1;
        }
        if files > 0 {
            setup.digest = *hasher.finalize().as_bytes();
        }
        Ok(setup)
    }

    /// What the text of a `config.pbtxt` says of a model; the files that it names are not read.
    ///
    /// # Errors
    /// A sentence that names the file, the field, what is wrong and what to do.
    pub fn of_config(text: &str, model: &str) -> Result<Self, String> {
        let config = triton::parse(text).map_err(text::plain)?;
        let setup = triton::check(&config, model);
        let setup = setup.map_err(|why| {
            let line = line::of(text, &why).map(|line| format!("line {line}: "));
            text::plain(format!("{TRITON}: {}{why}", line.unwrap_or_default()))
        })?;
        Ok(Self { config: Some(config), ..setup })
    }

    /// What the text of a `model.toml` sets.
    ///
    /// # Errors
    /// A sentence with the line, the key, the value and what is allowed.
    pub fn of_own(text: &str) -> Result<(Settings, Vec<padding::Declared>), String> {
        own::parse(text).map_err(text::plain)
    }

    /// Rows of one request, at most; none where nothing is declared.
    #[must_use]
    pub fn request_rows_max(&self) -> Option<usize> {
        self.declared.batched
    }
}

/// The folder and the name of the file of settings that are ours alone, whether it is there or not.
#[must_use]
pub fn own_file(found: &Found) -> (&Path, String) {
    match found.folder() {
        Some(folder) => (folder, OWN.to_owned()),
        None => {
            (found.file.parent().unwrap_or_else(|| Path::new(".")), format!("{}.toml", found.name))
        }
    }
}

/// Why the `config.pbtxt` of a folder that holds no model file names no model to be served; none without one.
///
/// What never has a file of its own, such as an ensemble, is refused for what it is.
#[must_use]
pub fn unservable(folder: &Path, name: &str, expected: &str) -> Option<String> {
    let text = match contents(folder, TRITON) {
        Ok(text) => text?,
        Err(why) => return Some(why),
    };
    let nothing = || format!("a {TRITON} and no model file beside it; expected {expected}");
    Some(Setup::of_config(&text, name).err().unwrap_or_else(nothing))
}

/// The text of a file of the model's folder; none where there is no such file.
fn contents(folder: &Path, name: &str) -> Result<Option<String>, String> {
    if std::fs::symlink_metadata(folder.join(name)).is_err() {
        return Ok(None);
    }
    let bytes =
        beneath::read(folder, name, FILE_BYTES_MAX).map_err(|why| format!("{name}: {why}"))?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{name} is not UTF-8 text"))?;
    Ok(Some(text))
}
