//! Settings of log and trace that clients may read and administrators may change.
//!
//! # Source
//! Triton's logging and trace extensions. No client chooses a file: log and traces go where the daemon was
//! told at its start.

use super::Service;
use crate::error::{ErrorKind, InferError};
use crate::logging::{self, Levels};
use crate::metrics::Phases;
use crate::model::ModelSpec;
use crate::proto::log_settings_request::setting_value::ParameterChoice as Asked;
use crate::proto::log_settings_response::setting_value::ParameterChoice as Told;
use crate::proto::{
    LogSettingsRequest, LogSettingsResponse, TraceSettingRequest, TraceSettingResponse,
    log_settings_response, trace_setting_response,
};
use crate::time::micros;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Settings as they are now.
#[derive(Debug, Default)]
pub(super) struct Settings {
    levels: Mutex<Levels>,
    /// Whether anything is traced at all: nearly always not, and then requests take no lock.
    tracing: AtomicBool,
    traces: Mutex<Traces>,
}

/// What is traced: of every model, and of those that have settings of their own.
#[derive(Debug, Default)]
struct Traces {
    all: Trace,
    models: BTreeMap<String, Trace>,
}

/// Which requests leave a line with their times in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trace {
    on: bool,
    /// One request of so many.
    rate: u64,
    /// How many more; none for no end.
    count: Option<u64>,
    /// Requests since the last one that was traced.
    passed: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { on: false, rate: 1000, count: None, passed: 0 }
    }
}

impl Trace {
    /// Whether the request that just ended is one to be traced.
    fn picks(&mut self) -> bool {
        if !self.on || self.count == Some(0) {
            return false;
        }
        self.passed += 1;
        if self.passed < self.rate {
            return false;
        }
        self.passed = 0;
        self.count = self.count.map(|count| count - 1);
        true
    }

    /// Changes one setting; no values take it back to its default.
    fn set(&mut self, key: &str, values: &[String]) -> Result<(), InferError> {
        let default = Self::default();
        match key {
            "trace_level" => self.on = level(values)?,
            "trace_rate" => self.rate = number(key, values, 1)?.unwrap_or(default.rate),
            "trace_count" if values == ["-1"] => self.count = None,
            "trace_count" => self.count = number(key, values, 0)?,
            "log_frequency" if values.is_empty() || values == ["0"] => {}
            "trace_mode" if values.is_empty() || values == ["triton"] => {}
            "trace_file" if values.is_empty() || values == [""] => {}
            "trace_file" => return Err(no_file(key)),
            "log_frequency" | "trace_mode" => {
                return Err(InferError::new(
                    ErrorKind::Unsupported,
                    format!("'{key}' cannot be {values:?}: traces are lines of the daemon's log"),
                ));
            }
            _ => return Err(unknown(key, "trace_level, trace_rate and trace_count")),
        }
        Ok(())
    }

    fn told(&self) -> TraceSettingResponse {
        let count = self.count.map_or_else(|| "-1".to_owned(), |count| count.to_string());
        let settings = [
            ("trace_level", if self.on { "TIMESTAMPS" } else { "OFF" }.to_owned()),
            ("trace_rate", self.rate.to_string()),
            ("trace_count", count),
            ("log_frequency", "0".to_owned()),
            ("trace_file", String::new()),
            ("trace_mode", "triton".to_owned()),
        ];
        let value = |value| trace_setting_response::SettingValue { value: vec![value] };
        let settings = settings.map(|(key, setting)| (key.to_owned(), value(setting)));
        TraceSettingResponse { settings: settings.into() }
    }
}

fn level(values: &[String]) -> Result<bool, InferError> {
    let known = |value: &String| ["OFF", "TIMESTAMPS"].contains(&value.as_str());
    match values.iter().find(|value| !known(value)) {
        None => Ok(values.iter().any(|value| value == "TIMESTAMPS")),
        Some(other) => Err(InferError::bad_request(format!(
            "'trace_level' has {other:?}; expected OFF or TIMESTAMPS"
        ))),
    }
}

fn number(key: &str, values: &[String], least: u64) -> Result<Option<u64>, InferError> {
    let [value] = values else {
        return match values {
            [] => Ok(None),
            _ => Err(InferError::bad_request(format!("'{key}' has several values; expected one"))),
        };
    };
    let number = value.parse().ok().filter(|&number| number >= least);
    number.map(Some).ok_or_else(|| {
        let text = format!("'{key}' is {value:?}; expected a whole number from {least} on");
        InferError::bad_request(text)
    })
}

fn unknown(key: &str, known: &str) -> InferError {
    let key = key.escape_debug();
    InferError::bad_request(format!("there is no setting '{key}' to change; there are {known}"))
}

fn no_file(key: &str) -> InferError {
    let text = format!("'{key}' cannot be changed by a client, as it would choose a path");
    InferError::new(ErrorKind::Unsupported, text)
}

impl Service {
    /// The log settings in force.
    #[must_use]
    pub fn log_settings(&self) -> LogSettingsResponse {
        let Levels { error, warning, info, verbose } = *self.settings.levels.lock();
        let settings = [
            ("log_file", Told::StringParam(String::new())),
            ("log_info", Told::BoolParam(info)),
            ("log_warning", Told::BoolParam(warning)),
            ("log_error", Told::BoolParam(error)),
            ("log_verbose_level", Told::Uint32Param(verbose)),
            ("log_format", Told::StringParam("default".to_owned())),
        ];
        let value = |told| log_settings_response::SettingValue { parameter_choice: Some(told) };
        let settings = settings.map(|(key, told)| (key.to_owned(), value(told)));
        LogSettingsResponse { settings: settings.into() }
    }

    /// Changes log settings, all of those given or none.
    ///
    /// # Errors
    /// `BadRequest` for an unknown setting or a value that does not fit, `Unsupported` for a file.
    pub fn change_logging(
        &self,
        request: &LogSettingsRequest,
    ) -> Result<LogSettingsResponse, InferError> {
        let mut levels = self.settings.levels.lock();
        let mut changed = *levels;
        for (key, value) in &request.settings {
            let wrong = |expected: &str| {
                InferError::bad_request(format!("log setting '{key}' must be {expected}"))
            };
            match (key.as_str(), &value.parameter_choice) {
                ("log_info", Some(Asked::BoolParam(on))) => changed.info = *on,
                ("log_warning", Some(Asked::BoolParam(on))) => changed.warning = *on,
                ("log_error", Some(Asked::BoolParam(on))) => changed.error = *on,
                ("log_verbose_level", Some(Asked::Uint32Param(level))) => changed.verbose = *level,
                ("log_format", Some(Asked::StringParam(form))) if form == "default" => {}
                ("log_file", Some(Asked::StringParam(file))) if file.is_empty() => {}
                ("log_file", _) => return Err(no_file(key)),
                ("log_info" | "log_warning" | "log_error", _) => {
                    return Err(wrong("true or false"));
                }
                ("log_verbose_level", _) => return Err(wrong("a whole number, 0 or more")),
                ("log_format", _) => return Err(wrong("'default'; start with --log-format")),
                _ => {
                    return Err(unknown(
                        key,
                        "log_info, log_warning, log_error, log_verbose_level",
                    ));
                }
            }
        }
        if changed != *levels {
            *levels = changed;
            logging::set(changed);
        }
        drop(levels);
        Ok(self.log_settings())
    }

    /// The trace settings in force: of one model, or of all.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn trace_settings(&self, model: Option<&str>) -> Result<TraceSettingResponse, InferError> {
        if let Some(model) = model {
            self.catalog().version(model, None)?;
        }
        let traces = self.settings.traces.lock();
        let own = model.and_then(|model| traces.models.get(model));
        Ok(own.unwrap_or(&traces.all).told())
    }

    /// Changes trace settings, all of those given or none: of one model, or of all.
    ///
    /// # Errors
    /// `NotFound`; `BadRequest` for an unknown setting or a value that does not fit, `Unsupported` for a file.
    pub fn change_tracing(
        &self,
        request: &TraceSettingRequest,
    ) -> Result<TraceSettingResponse, InferError> {
        let model = Some(request.model_name.as_str()).filter(|name| !name.is_empty());
        if let Some(model) = model {
            self.catalog().version(model, None)?;
        }
        let mut traces = self.settings.traces.lock();
        let own = model.and_then(|model| traces.models.get(model));
        let mut changed = *own.unwrap_or(&traces.all);
        for (key, value) in &request.settings {
            changed.set(key, &value.value)?;
        }
        if !request.settings.is_empty() {
            match model {
                Some(model) => drop(traces.models.insert(model.to_owned(), changed)),
                None => traces.all = changed,
            }
            let any = traces.all.on || traces.models.values().any(|trace| trace.on);
            self.settings.tracing.store(any, Ordering::Relaxed);
        }
        Ok(changed.told())
    }

    /// Leaves a line for a request that ended, if it is one to be traced.
    pub(super) fn trace(&self, spec: &ModelSpec, id: &str, took: Duration, phases: Option<Phases>) {
        if !self.settings.tracing.load(Ordering::Relaxed) {
            return;
        }
        let mut traces = self.settings.traces.lock();
        let Traces { all, models } = &mut *traces;
        if !models.get_mut(&spec.name).unwrap_or(all).picks() {
            return;
        }
        drop(traces);
        let Phases { queue, gather, run, done: _ } = phases.unwrap_or_default();
        tracing::info!(
            target: "graftd::trace",
            model = %spec.name,
            version = spec.version,
            id = %id.escape_debug(),
            took_us = micros(took),
            queue_us = micros(queue),
            gather_us = micros(gather),
            run_us = micros(run),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_of_so_many_is_picked_until_the_count_is_used_up() {
        let mut trace = Trace { on: true, rate: 3, count: Some(2), passed: 0 };
        let picked: Vec<usize> = (1..=12).filter(|_| trace.picks()).collect();
        assert_eq!(picked, [3, 6]);
        assert_eq!(trace.told().settings["trace_count"].value, ["0"]);
        assert!(!Trace::default().picks());
    }

    #[test]
    fn trace_settings_are_taken_reset_and_refused_by_name() {
        let set = |key: &str, values: &[&str]| {
            let mut trace = Trace { on: true, rate: 7, count: Some(1), passed: 0 };
            let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
            trace.set(key, &values).map(|()| trace)
        };
        assert!(!set("trace_level", &["OFF"]).unwrap().on);
        assert_eq!(set("trace_rate", &[]).unwrap().rate, 1000);
        assert_eq!(set("trace_count", &["-1"]).unwrap().count, None);
        for (key, value) in
            [("trace_level", "TENSORS"), ("trace_rate", "0"), ("trace_rate", "x"), ("nope", "1")]
        {
            let why = set(key, &[value]).unwrap_err();
            assert!(why.kind == ErrorKind::BadRequest && why.message.contains(key), "{why}");
        }
        let why = set("trace_file", &["/etc/passwd"]).unwrap_err();
        assert_eq!(why.kind, ErrorKind::Unsupported);
    }
}
