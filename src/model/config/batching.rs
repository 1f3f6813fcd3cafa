//! Dynamic batching as a file declares it.

use super::queue::{Policy, Queue};
use crate::model::settings::Settings;
use crate::proto::model_config::SchedulingChoice;
use crate::proto::model_queue_policy::TimeoutAction;
use crate::proto::{ModelDynamicBatching, ModelQueuePolicy};
use std::time::Duration;

/// Levels of priority that the scheduler knows.
const LEVELS_MAX: u8 = 9;

/// Takes over what is declared of scheduling.
///
/// # Errors
/// A sentence, for what is not served or cannot be.
pub(super) fn scheduling(
    choice: Option<&SchedulingChoice>,
    rows_max: Option<usize>,
    settings: &mut Settings,
    notes: &mut Vec<String>,
) -> Result<Queue, String> {
    match choice {
        None => Ok(Queue::default()),
        Some(SchedulingChoice::DynamicBatching(batching)) => {
            dynamic(batching, rows_max, settings, notes)
        }
        Some(SchedulingChoice::SequenceBatching(_)) => Err(
            "sequence_batching is not served: requests keep no state between them; remove it, or give \
             the state as inputs and outputs"
                .into(),
        ),
        Some(SchedulingChoice::EnsembleScheduling(_)) => Err(
            "ensemble_scheduling is not served: each model is asked by itself; call the models one \
             after another, or merge them into one ONNX file"
                .into(),
        ),
    }
}

fn dynamic(
    batching: &ModelDynamicBatching,
    rows_max: Option<usize>,
    settings: &mut Settings,
    notes: &mut Vec<String>,
) -> Result<Queue, String> {
    let ModelDynamicBatching {
        preferred_batch_size,
        max_queue_delay_microseconds,
        preserve_ordering,
        priority_levels,
        default_priority_level,
        default_queue_policy,
        priority_queue_policy,
    } = batching;
    let limit = rows_max.unwrap_or(usize::MAX);
    let size = |&size: &i32| {
        usize::try_from(size).ok().filter(|size| (1..=limit).contains(size)).ok_or_else(|| {
            format!("dynamic_batching.preferred_batch_size is {size}; expected 1 to max_batch_size")
        })
    };
    let mut sizes: Vec<usize> = preferred_batch_size.iter().map(size).collect::<Result<_, _>>()?;
    sizes.sort_unstable();
    sizes.dedup();
    settings.batch_rows_preferred = (!sizes.is_empty()).then_some(sizes);
    settings.queue_delay = (*max_queue_delay_microseconds > 0)
        .then(|| Duration::from_micros(*max_queue_delay_microseconds));
    if *preserve_ordering {
        notes.push(
            "dynamic_batching.preserve_ordering (each answer goes out when it is there)".into(),
        );
    }
    let levels = levels(*priority_levels, *default_priority_level)?;
    let mut queue = Queue { levels, ..Queue::default() };
    let name = "dynamic_batching.default_queue_policy";
    if let Some(declared) = default_queue_policy {
        (queue.policy, queue.rows_max) = policy(name, declared, notes)?;
    }
    for (&level, declared) in priority_queue_policy {
        let name = format!("dynamic_batching.priority_queue_policy {level}");
        let known = levels.map_or(0, |(levels, _)| levels);
        let level = u8::try_from(level).ok().filter(|level| (1..=known).contains(level));
        let level =
            level.ok_or_else(|| format!("{name}: expected a level of 1 to priority_levels"))?;
        let (policy, rows_max) = policy(&name, declared, notes)?;
        if rows_max.is_some() {
            return Err(format!(
                "{name}: max_queue_size is not served for single levels; set it in default_queue_policy"
            ));
        }
        queue.by_level.insert(level, policy);
    }
    Ok(queue)
}

fn levels(levels: u64, default: u64) -> Result<Option<(u8, u8)>, String> {
    if levels == 0 {
        return match default {
            0 => Ok(None),
            _ => {
                Err("dynamic_batching.default_priority_level is set without priority_levels".into())
            }
        };
    }
    let count =
        u8::try_from(levels).ok().filter(|&count| count <= LEVELS_MAX).ok_or_else(|| {
            format!("dynamic_batching.priority_levels is {levels}; expected at most {LEVELS_MAX}")
        })?;
    let default = u8::try_from(default).ok().filter(|default| (1..=count).contains(default));
    let default = default.ok_or_else(|| {
        format!("dynamic_batching.default_priority_level: expected 1 to priority_levels, {count}")
    })?;
    Ok(Some((count, default)))
}

fn policy(
    name: &str,
    declared: &ModelQueuePolicy,
    notes: &mut Vec<String>,
) -> Result<(Policy, Option<usize>), String> {
    let ModelQueuePolicy {
        timeout_action,
        default_timeout_microseconds,
        allow_timeout_override,
        max_queue_size,
    } = declared;
    let mut timeout = (*default_timeout_microseconds > 0)
        .then(|| Duration::from_micros(*default_timeout_microseconds));
    match TimeoutAction::try_from(*timeout_action) {
        Ok(TimeoutAction::Reject) => {}
        Ok(TimeoutAction::Delay) => {
            notes.push(format!("{name}.timeout_action DELAY (late requests keep their place)"));
            timeout = None;
        }
        Err(_) => {
            return Err(format!(
                "{name}.timeout_action is {timeout_action}; expected REJECT or DELAY"
            ));
        }
    }
    let rows_max = usize::try_from(*max_queue_size).ok().filter(|&size| size > 0);
    Ok((Policy { timeout, overridable: *allow_timeout_override }, rows_max))
}
