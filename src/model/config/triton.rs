//! `config.pbtxt`: what a model repository made for Triton says of a model, taken apart field by field.

use super::instances::instances;
use super::session::{Device, Session};
use super::{BACKEND, PLATFORM, Setup, batching, layout, tensors, warmup};
use crate::model::settings::Settings;
use crate::proto::{
    ModelConfig, ModelOperations, ModelRepositoryAgents, ModelResponseCache, ModelTransactionPolicy,
};
use crate::reflect;

/// The configuration that a text says: protobuf's text format, or the JSON that load requests bring.
///
/// # Errors
/// A sentence: where the text is wrong, or which field is unknown or of another type.
pub(super) fn parse(text: &str) -> Result<ModelConfig, String> {
    // No message in the text format starts with a brace.
    let json = text.trim_start().starts_with('{');
    let config = if json { reflect::from_json(text) } else { reflect::from_text(text) };
    config.map_err(|why| format!("config.pbtxt: {why}"))
}

/// What a configuration means here.
///
/// # Errors
/// A sentence that names the field that is wrong or not served, and what to do.
pub(super) fn check(config: &ModelConfig, model: &str) -> Result<Setup, String> {
    let ModelConfig {
        name,
        platform,
        backend,
        runtime,
        version_policy: _,
        max_batch_size,
        input,
        output,
        batch_input,
        batch_output,
        optimization,
        instance_group,
        default_model_filename: _,
        cc_model_filenames,
        metric_tags,
        parameters,
        model_warmup,
        model_operations,
        model_transaction_policy,
        model_repository_agents,
        response_cache,
        model_metrics,
        scheduling_choice,
    } = config;
    if !name.is_empty() && name != model {
        return Err(format!("name is '{name}'; expected the folder's name, '{model}', or none"));
    }
    named("platform", platform, PLATFORM)?;
    named("backend", backend, BACKEND)?;
    layout::of(config)?;
    refuse(
        !batch_input.is_empty(),
        "batch_input is not served: a batch makes no inputs of its own; remove it",
    )?;
    refuse(
        !batch_output.is_empty(),
        "batch_output is not served: outputs are cut by row; remove it",
    )?;
    agents(model_operations.as_ref(), model_repository_agents.as_ref())?;
    if let Some(ModelTransactionPolicy { decoupled: true }) = model_transaction_policy {
        return Err("model_transaction_policy.decoupled is not served: a request has one answer; \
                    remove it"
            .into());
    }
    let mut notes = Vec::new();
    let ignored = [
        (!runtime.is_empty(), "runtime", "the daemon's ONNX Runtime is used"),
        (!cc_model_filenames.is_empty(), "cc_model_filenames", "one file serves every device"),
        (!metric_tags.is_empty(), "metric_tags", "metrics carry model and version"),
        (model_metrics.is_some(), "model_metrics", "histograms have fixed buckets"),
    ];
    let set = ignored.iter().filter(|(set, ..)| *set);
    notes.extend(set.map(|(_, field, why)| format!("{field} ({why})")));
    let mut settings = Settings {
        cache: response_cache.as_ref().map(|ModelResponseCache { enable }| *enable),
        ..Settings::default()
    };
    let declared = tensors::Declared::new(*max_batch_size, input, output, &mut notes)?;
    let mut session = Session::default();
    session.parameters(parameters, &mut settings, &mut notes)?;
    if let Some(policy) = optimization {
        session.optimization(policy, &mut notes)?;
    }
    (settings.sessions, session.device) = instances(instance_group, &mut notes)?;
    let choice = scheduling_choice.as_ref();
    let queue = batching::scheduling(choice, declared.batched, &mut settings, &mut notes)?;
    let warmup = warmup::parse(model_warmup, declared.batched)?;
    Ok(Setup { settings, declared, session, queue, warmup, notes, ..Setup::default() })
}

fn named(field: &str, value: &str, expected: &str) -> Result<(), String> {
    if value.is_empty() || value == expected {
        return Ok(());
    }
    Err(format!("{field} is '{value}'; expected '{expected}': models here are ONNX files"))
}

fn refuse(set: bool, why: &str) -> Result<(), String> {
    if set { Err(why.to_owned()) } else { Ok(()) }
}

fn agents(
    operations: Option<&ModelOperations>,
    agents: Option<&ModelRepositoryAgents>,
) -> Result<(), String> {
    if let Some(ModelOperations { op_library_filename }) = operations {
        refuse(
            !op_library_filename.is_empty(),
            "model_operations is not served: libraries of operators are foreign code; remove it",
        )?;
    }
    if let Some(ModelRepositoryAgents { agents }) = agents {
        refuse(
            !agents.is_empty(),
            "model_repository_agents is not served: no program changes a model before it is loaded; \
             remove it, and store the model as it is to be loaded",
        )?;
    }
    Ok(())
}

/// Whether a model asks for a device that the daemon does not use, in words.
#[must_use]
pub fn elsewhere(device: Option<Device>, gpu: bool) -> Option<&'static str> {
    match device {
        Some(Device::Gpu) if !gpu => {
            Some("instance_group.kind KIND_GPU (the daemon's provider is no GPU's; see --provider)")
        }
        _ => None,
    }
}
