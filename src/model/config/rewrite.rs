//! Settings written into a model's own file, with all else in it left as it is, comments too.

use super::{contents, own_file};
use crate::model::scan::Found;
use crate::sched::spread::Spread;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use toml_edit::{DocumentMut, value};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// How runs are spread over the cores.
    pub spread: Spread,
    /// Rows of one batch, at most; what is there stays where this is none.
    pub batch_rows_max: Option<usize>,
}

/// Writes settings into the file of a model that is ours alone; gives back which that is.
///
/// The file is there with the old text or the new one at any time.
///
/// # Errors
/// A sentence that names the file, what is wrong and what to do.
pub fn rewrite(found: &Found, written: Written) -> Result<PathBuf, String> {
    let (folder, name) = own_file(found);
    let path = folder.join(&name);
    let shown = path.display();
    let old = fs::symlink_metadata(&path).ok();
    if old.as_ref().is_some_and(|data| !data.is_file()) {
        return Err(format!(
            "{shown} is no plain file, and what it stands for is not touched; set the keys by hand"
        ));
    }
    let text = contents(folder, &name)?.unwrap_or_default();
    let text = edited(&text, written).map_err(|why| format!("{shown}: {why}"))?;
    let unwritable = |error: std::io::Error| {
        format!("{shown}: {error}; write where the folder can be written, or set the keys by hand")
    };
    let mode = old.map_or(0o644, |data| data.permissions().mode() & 0o7777);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".graftd-").permissions(Permissions::from_mode(mode));
    let mut file = builder.tempfile_in(folder).map_err(unwritable)?;
    file.write_all(text.as_bytes()).map_err(unwritable)?;
    file.persist(&path).map_err(|error| unwritable(error.error))?;
    Ok(path)
}

fn edited(text: &str, Written { spread, batch_rows_max }: Written) -> Result<String, String> {
    let mut file: DocumentMut = text.parse().map_err(|error| format!("it is no TOML: {error}"))?;
    let set = [
        ("sessions", Some(spread.sessions)),
        ("threads", Some(spread.threads)),
        ("max_batch_rows", batch_rows_max),
    ];
    for (key, number) in set {
        let Some(number) = number else { continue };
        let number = i64::try_from(number).map_err(|_| format!("{key} is {number}"))?;
        match file.get_mut(key).and_then(|item| item.as_value_mut()) {
            Some(present) => {
                // Blanks and a comment around it stay.
                let around = present.decor().clone();
                *present = number.into();
                *present.decor_mut() = around;
            }
            None => file[key] = value(number),
        }
    }
    Ok(file.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::Setup;

    const WRITTEN: Written =
        Written { spread: Spread { threads: 2, sessions: 3 }, batch_rows_max: Some(8) };

    #[test]
    fn all_else_stays_as_it_is() {
        let table = [
            ("", "sessions = 3\nthreads = 2\nmax_batch_rows = 8\n"),
            (
                "# ours\nthreads = 7 # of run\ncache=false\n\n[[padding]]\ninputs = {}\n",
                "# ours\nthreads = 2 # of run\ncache=false\nsessions = 3\nmax_batch_rows = 8\n\n[[padding]]\ninputs = {}\n",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(edited(text, WRITTEN).as_deref(), Ok(expected), "{text}");
        }
        assert!(edited("threads =", WRITTEN).unwrap_err().contains("no TOML"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.onnx");
        let found = Found { name: "m".into(), version: 1, file };
        let path = rewrite(&found, WRITTEN).unwrap();
        assert_eq!(path, folder.path().join("m.toml"));
        let read = Setup::read(&found).unwrap().settings;
        assert_eq!((read.threads, read.sessions, read.batch_rows_max), (Some(2), Some(3), Some(8)));
        let alone = Written { batch_rows_max: None, ..WRITTEN };
        fs::write(&path, "max_batch_rows = 5").unwrap();
        rewrite(&found, alone).unwrap();
        assert_eq!(Setup::read(&found).unwrap().settings.batch_rows_max, Some(5));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_link_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let found = Found { name: "m".into(), version: 1, file: folder.path().join("m.onnx") };
        fs::write(folder.path().join("shared.toml"), "").unwrap();
        std::os::unix::fs::symlink("shared.toml", folder.path().join("m.toml")).unwrap();
        assert!(rewrite(&found, WRITTEN).unwrap_err().contains("no plain file"));
    }
}
