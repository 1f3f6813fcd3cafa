//! The protocol's tree of paths.

use crate::server::rights::Operation;
use http::Method;
use percent_encoding::percent_decode_str;

/// A place in the tree of paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Live,
    Ready,
    Server,
    Metrics,
    /// How the daemon is, for people.
    Status,
    /// Which models share a base, for people.
    Families,
    /// Why requests took their routes: one of them, or the last.
    Explain(Option<String>),
    /// Statistics of every model.
    Statistics,
    Model {
        model: String,
        version: Option<String>,
        verb: Verb,
    },
    Index,
    Load(String),
    Unload(String),
    Logging,
    /// What is traced: of one model, or of all.
    Tracing(Option<String>),
    Regions(Memory, RegionVerb),
}

/// What is wanted of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Metadata,
    Ready,
    Config,
    Statistics,
    Infer,
}

/// The two kinds of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    System,
    Cuda,
}

/// What is wanted of regions of shared memory; none means all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RegionVerb {
    Status(Option<String>),
    Register(String),
    Unregister(Option<String>),
}

/// The methods that a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Methods {
    Get,
    Post,
    GetAndPost,
}

impl Methods {
    /// The value of an `Allow` header.
    pub(super) const fn names(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
            Self::GetAndPost => "GET, HEAD, POST",
        }
    }

    pub(super) fn allow(self, method: &Method) -> bool {
        match *method {
            Method::GET | Method::HEAD => self != Self::Post,
            Method::POST => self != Self::Get,
            _ => false,
        }
    }
}

impl Route {
    /// The route of a path; none where there is nothing.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        Some(match parts.as_slice() {
            ["metrics"] => Self::Metrics,
            ["v2", "graftd", "status"] => Self::Status,
            ["v2", "graftd", "families"] => Self::Families,
            ["v2", "graftd", "explain"] => Self::Explain(None),
            ["v2", "graftd", "explain", id] => Self::Explain(Some(name(id)?)),
            ["v2"] | ["v2", ""] => Self::Server,
            ["v2", "health", "live"] => Self::Live,
            ["v2", "health", "ready"] => Self::Ready,
            // A model of this name is reached with its version.
            ["v2", "models", "stats"] => Self::Statistics,
            ["v2", "models", model, rest @ ..] => Self::of_model(name(model)?, rest)?,
            ["v2", "repository", "index"] => Self::Index,
            ["v2", "repository", "models", model, "load"] => Self::Load(name(model)?),
            ["v2", "repository", "models", model, "unload"] => Self::Unload(name(model)?),
            ["v2", "logging"] => Self::Logging,
            ["v2", "trace", "setting"] => Self::Tracing(None),
            ["v2", "systemsharedmemory", rest @ ..] => {
                Self::Regions(Memory::System, RegionVerb::parse(rest)?)
            }
            ["v2", "cudasharedmemory", rest @ ..] => {
                Self::Regions(Memory::Cuda, RegionVerb::parse(rest)?)
            }
            _ => return None,
        })
    }

    fn of_model(model: String, rest: &[&str]) -> Option<Self> {
        let (version, rest) = match rest {
            ["versions", version, rest @ ..] => (Some(name(version)?), rest),
            rest => (None, rest),
        };
        let verb = match rest {
            [] => Verb::Metadata,
            ["ready"] => Verb::Ready,
            ["config"] => Verb::Config,
            ["stats"] => Verb::Statistics,
            ["infer"] => Verb::Infer,
            ["trace", "setting"] if version.is_none() => return Some(Self::Tracing(Some(model))),
            _ => return None,
        };
        Some(Self::Model { model, version, verb })
    }

    /// The methods that this route takes.
    pub(super) const fn methods(&self) -> Methods {
        match self {
            Self::Live | Self::Ready | Self::Server => Methods::Get,
            Self::Metrics | Self::Status | Self::Families | Self::Statistics => Methods::Get,
            Self::Explain(_) => Methods::Get,
            Self::Model { verb: Verb::Infer, .. } => Methods::Post,
            Self::Model { .. } => Methods::Get,
            Self::Index | Self::Load(_) | Self::Unload(_) => Methods::Post,
            Self::Logging | Self::Tracing(_) => Methods::GetAndPost,
            Self::Regions(_, RegionVerb::Status(_)) => Methods::Get,
            Self::Regions(_, RegionVerb::Register(_) | RegionVerb::Unregister(_)) => Methods::Post,
        }
    }

    /// What a request on this route asks for, so that it can be decided whether the peer may.
    pub(super) fn operation(&self, method: &Method) -> Operation {
        match self {
            Self::Live | Self::Ready | Self::Model { verb: Verb::Ready, .. } => Operation::Health,
            Self::Server | Self::Index => Operation::Describe,
            Self::Model { verb: Verb::Metadata | Verb::Config, .. } => Operation::Describe,
            Self::Metrics | Self::Status | Self::Families | Self::Statistics => Operation::Observe,
            Self::Explain(_) => Operation::Observe,
            Self::Model { verb: Verb::Statistics, .. } => Operation::Observe,
            Self::Model { verb: Verb::Infer, .. } => Operation::Infer,
            Self::Load(_) | Self::Unload(_) => Operation::ChangeModels,
            Self::Logging | Self::Tracing(_) if *method == Method::POST => Operation::ChangeLogging,
            Self::Logging | Self::Tracing(_) => Operation::Describe,
            Self::Regions(..) => Operation::SharedMemory,
        }
    }
}

impl RegionVerb {
    fn parse(rest: &[&str]) -> Option<Self> {
        Some(match rest {
            ["status"] => Self::Status(None),
            ["unregister"] => Self::Unregister(None),
            ["region", region, "status"] => Self::Status(Some(name(region)?)),
            ["region", region, "register"] => Self::Register(name(region)?),
            ["region", region, "unregister"] => Self::Unregister(Some(name(region)?)),
            _ => return None,
        })
    }
}

/// A name in a path, its percent signs resolved; none for an empty one or one that is not UTF-8.
fn name(text: &str) -> Option<String> {
    let decoded = percent_decode_str(text).decode_utf8().ok()?.into_owned();
    (!decoded.is_empty()).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_protocol_and_no_others() {
        let model = |model: &str, version: Option<&str>, verb| {
            let (model, version) = (model.to_owned(), version.map(str::to_owned));
            Some(Route::Model { model, version, verb })
        };
        let regions = |verb| Some(Route::Regions(Memory::System, verb));
        let table = [
            ("/v2", Some(Route::Server)),
            ("/v2/", Some(Route::Server)),
            ("/v2/health/live", Some(Route::Live)),
            ("/v2/models/a%20b/infer", model("a b", None, Verb::Infer)),
            ("/v2/models/m/versions/3", model("m", Some("3"), Verb::Metadata)),
            ("/v2/models/m/versions/3/ready", model("m", Some("3"), Verb::Ready)),
            ("/v2/models/m/config", model("m", None, Verb::Config)),
            ("/v2/graftd/status", Some(Route::Status)),
            ("/v2/graftd/families", Some(Route::Families)),
            ("/v2/graftd/explain", Some(Route::Explain(None))),
            ("/v2/graftd/explain/a%2Fb", Some(Route::Explain(Some("a/b".into())))),
            ("/v2/graftd/explain/", None),
            ("/v2/models/stats", Some(Route::Statistics)),
            ("/v2/models/stats/versions/1", model("stats", Some("1"), Verb::Metadata)),
            ("/v2/models/m/versions/1/stats", model("m", Some("1"), Verb::Statistics)),
            ("/v2/models/m/trace/setting", Some(Route::Tracing(Some("m".into())))),
            ("/v2/models/m/versions/1/trace/setting", None),
            ("/v2/repository/index", Some(Route::Index)),
            ("/v2/repository/models/m/load", Some(Route::Load("m".into()))),
            ("/v2/systemsharedmemory/status", regions(RegionVerb::Status(None))),
            ("/v2/systemsharedmemory/region/r/register", regions(RegionVerb::Register("r".into()))),
            ("/v2/systemsharedmemory/region/r", None),
            ("/v2/models//infer", None),
            ("/v2/models/%ff/infer", None),
            ("/v2/models/m/delete", None),
            ("/v2/models/m/versions/1/2", None),
            ("/", None),
            ("*", None),
        ];
        for (path, expected) in table {
            assert_eq!(Route::parse(path), expected, "{path}");
        }
    }

    #[test]
    fn whatever_changes_the_daemon_is_for_administrators() {
        let changing = [
            "/v2/repository/models/m/load",
            "/v2/repository/models/m/unload",
            "/v2/logging",
            "/v2/trace/setting",
            "/v2/models/m/trace/setting",
            "/v2/systemsharedmemory/unregister",
            "/v2/systemsharedmemory/region/r/register",
            "/v2/cudasharedmemory/region/r/register",
        ];
        for path in changing {
            let route = Route::parse(path).unwrap();
            assert!(route.methods().allow(&Method::POST), "{path}");
            assert!(route.operation(&Method::POST).changes_daemon(), "{path}");
        }
        for path in ["/v2/logging", "/v2/trace/setting", "/v2/models/m/config", "/metrics", "/v2"] {
            let route = Route::parse(path).unwrap();
            assert!(!route.operation(&Method::GET).changes_daemon(), "{path}");
        }
        let infer = Route::parse("/v2/models/m/infer").unwrap();
        assert_eq!(infer.operation(&Method::POST), Operation::Infer);
    }
}
