//! Who decides which models are served: the directory, the administrator, or both.

use crate::text;
use std::collections::BTreeSet;
use std::str::FromStr;

/// Who decides which models are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// All models of the directory are, and an administrator may load and unload.
    #[default]
    Open,
    /// All models of the directory as it was at start; nothing changes after.
    Fixed,
    /// All models of the directory as it is now; nobody may load or unload.
    Poll,
    /// Those that were named, at start or by an administrator since.
    Explicit(Named),
}

/// The models that are loaded at start where only named ones are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Whatever is there at start.
    pub all: bool,
    /// These.
    pub names: BTreeSet<String>,
}

/// What `--model-control-mode` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Changes are refused.
    None,
    /// The directory decides.
    Poll,
    /// The administrator decides.
    Explicit,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "poll" => Ok(Self::Poll),
            "explicit" => Ok(Self::Explicit),
            _ => Err(format!("'{text}' is not one of none, poll, explicit")),
        }
    }
}

impl Named {
    /// A sentence for each model named that is not among those that are known: most likely a slip of the finger.
    #[must_use]
    pub fn strangers(&self, known: &BTreeSet<&str>) -> Vec<String> {
        let missing = self.names.iter().filter(|name| !known.contains(name.as_str()));
        let hint = |name: &str| match text::meant(name, known.iter().copied()) {
            Some(near) => format!("; did you mean {}?", text::name(near)),
            None => String::new(),
        };
        let sentence = |name: &String| {
            let (quoted, hint) = (text::name(name), hint(name));
            format!("--load-model {quoted}: the model directory has no such model{hint}")
        };
        missing.map(sentence).collect()
    }
}

impl Control {
    /// What a mode and the models named beside it mean together.
    ///
    /// # Errors
    /// Models are named where the mode does not ask for names.
    pub fn new(mode: Option<Mode>, load: &[String]) -> Result<Self, String> {
        match mode {
            Some(Mode::Explicit) => {
                let all = load.iter().any(|name| name == "*");
                let names = load.iter().filter(|name| *name != "*").cloned().collect();
                Ok(Self::Explicit(Named { all, names }))
            }
            _ if !load.is_empty() => {
                Err("--load-model names what to load and so needs --model-control-mode explicit; \
                 without it every model is loaded"
                    .into())
            }
            Some(Mode::None) => Ok(Self::Fixed),
            Some(Mode::Poll) => Ok(Self::Poll),
            None => Ok(Self::Open),
        }
    }

    /// Why nobody may load or unload models; none where an administrator may.
    #[must_use]
    pub fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Open | Self::Explicit(_) => None,
            Self::Fixed => {
                Some("models cannot be loaded or unloaded under --model-control-mode none")
            }
            Self::Poll => Some(
                "models cannot be loaded or unloaded under --model-control-mode poll: \
                 change the model directory instead",
            ),
        }
    }

    /// Whether a model of the directory is served that nobody asked for since the start.
    #[must_use]
    pub fn wants(&self, model: &str, first_look: bool) -> bool {
        match self {
            Self::Open | Self::Fixed | Self::Poll => true,
            Self::Explicit(named) => named.names.contains(model) || (named.all && first_look),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_names_decide_who_decides() {
        let names = |text: &[&str]| text.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let none = Control::new(None, &[]).unwrap();
        assert_eq!((none.wants("m", false), none.refusal()), (true, None));
        let explicit = Control::new(Some(Mode::Explicit), &names(&["a"])).unwrap();
        assert!(explicit.wants("a", true) && !explicit.wants("b", true));
        assert_eq!(explicit.refusal(), None);
        let Control::Explicit(named) = &explicit else { panic!("{explicit:?}") };
        assert!(named.strangers(&BTreeSet::from(["a", "b"])).is_empty());
        assert!(named.strangers(&BTreeSet::from(["b"]))[0].contains("--load-model a: "));
        let star = Control::new(Some(Mode::Explicit), &names(&["*"])).unwrap();
        assert!(star.wants("b", true) && !star.wants("b", false));
        for mode in [Mode::None, Mode::Poll] {
            let control = Control::new(Some(mode), &[]).unwrap();
            assert!(control.wants("m", false) && control.refusal().is_some());
            assert!(Control::new(Some(mode), &names(&["m"])).is_err());
        }
        assert!("both".parse::<Mode>().unwrap_err().contains("explicit"));
    }
}
