//! How a model's sessions are set up, from the parameters that Triton's ONNX Runtime backend takes.

use crate::model::settings::Settings;
use crate::proto::model_optimization_policy::{Graph, ModelPriority};
use crate::proto::{ModelOptimizationPolicy, ModelParameter};
use std::collections::BTreeMap;
use std::str::FromStr;

/// Threads past which a number is a slip of the finger.
const THREADS_MAX: usize = 1024;

/// Where a model asks to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// On the CPU, whatever the daemon's provider is.
    Cpu,
    /// On a GPU.
    Gpu,
}

/// How far the runtime rewrites a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GraphLevel {
    /// Not at all.
    Disabled,
    /// Redundant nodes go and constants are folded.
    Basic,
    /// Operators are fused, too.
    Extended,
    /// Everything that the runtime can do.
    #[default]
    All,
}

/// How sessions are set up; the default is as for every model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Where the model asks to run.
    pub device: Option<Device>,
    /// How far its graph is rewritten.
    pub graph: GraphLevel,
    /// Branches of its graph run side by side.
    pub parallel: bool,
    /// Threads for those branches.
    pub inter_threads: Option<usize>,
    /// Entries of the runtime's session configuration.
    pub entries: Vec<(String, String)>,
}

/// Entries of the session's configuration that change how it computes; others name files or providers.
const ENTRIES: [&str; 14] = [
    "session.allow_released_opsets_only",
    "session.disable_aot_function_inlining",
    "session.disable_double_qdq_remover",
    "session.disable_prepacking",
    "session.disable_quant_qdq",
    "session.dynamic_block_base",
    "session.enable_quant_qdq_cleanup",
    "session.force_spinning_stop",
    "session.inter_op.allow_spinning",
    "session.intra_op.allow_spinning",
    "session.qdq_matmulnbits_accuracy_level",
    "session.set_denormal_as_zero",
    "session.strict_shape_type_inference",
    "session.use_device_allocator_for_initializers",
];

impl Session {
    /// Whether nothing here can change a result by as much as rounding.
    #[must_use]
    pub fn computes_as_usual(&self) -> bool {
        self.graph == GraphLevel::All && self.entries.is_empty()
    }

    pub(super) fn parameters(
        &mut self,
        parameters: &BTreeMap<String, ModelParameter>,
        settings: &mut Settings,
        notes: &mut Vec<String>,
    ) -> Result<(), String> {
        for (key, ModelParameter { string_value }) in parameters {
            let value = string_value.trim();
            match key.as_str() {
                "intra_op_thread_count" => settings.threads = threads(key, value)?,
                "inter_op_thread_count" => self.inter_threads = threads(key, value)?,
                "execution_mode" => self.parallel = switch(key, value)?,
                _ if ENTRIES.contains(&key.as_str()) => {
                    if value.contains('\0') {
                        return Err(format!("parameters '{key}' holds a NUL byte"));
                    }
                    self.entries.push((key.clone(), value.to_owned()));
                }
                _ if key.starts_with("session.") => {
                    return Err(format!(
                        "parameters '{key}' cannot be set; of the session's entries these can: {}",
                        ENTRIES.join(", ")
                    ));
                }
                _ => notes.push(format!("parameters '{key}' means nothing here")),
            }
        }
        Ok(())
    }

    pub(super) fn optimization(
        &mut self,
        policy: &ModelOptimizationPolicy,
        notes: &mut Vec<String>,
    ) -> Result<(), String> {
        let ModelOptimizationPolicy {
            graph,
            priority,
            cuda,
            execution_accelerators,
            input_pinned_memory,
            output_pinned_memory,
            gather_kernel_buffer_threshold,
            eager_batching,
        } = policy;
        if let Some(Graph { level }) = graph {
            self.graph = match level {
                0 => GraphLevel::All,
                -1 => GraphLevel::Basic,
                1 => GraphLevel::Extended,
                2 => GraphLevel::Disabled,
                other => {
                    return Err(format!(
                        "optimization.graph.level is {other}; expected 0 (all), -1 (basic), 1 (extended) or 2 (none)"
                    ));
                }
            };
        }
        let ignored = [
            (
                ModelPriority::try_from(*priority) != Ok(ModelPriority::PriorityDefault),
                "priority",
                "models share the cores alike",
            ),
            (cuda.is_some(), "cuda", "CUDA graphs are not used"),
            (
                execution_accelerators.is_some(),
                "execution_accelerators",
                "--provider chooses who executes",
            ),
            (input_pinned_memory.is_some(), "input_pinned_memory", "memory is not pinned"),
            (output_pinned_memory.is_some(), "output_pinned_memory", "memory is not pinned"),
            (
                *gather_kernel_buffer_threshold > 0,
                "gather_kernel_buffer_threshold",
                "batches are gathered by copies",
            ),
            (*eager_batching, "eager_batching", "batches are gathered when they start"),
        ];
        let set = ignored.iter().filter(|(set, ..)| *set);
        notes.extend(set.map(|(_, field, why)| format!("optimization.{field} ({why})")));
        Ok(())
    }
}

/// A number of threads; 0 leaves the choice to the daemon.
fn threads(key: &str, value: &str) -> Result<Option<usize>, String> {
    match usize::from_str(value) {
        Ok(0) => Ok(None),
        Ok(count) if count <= THREADS_MAX => Ok(Some(count)),
        _ => Err(format!(
            "parameters '{key}' is {value:?}; expected a whole number, {THREADS_MAX} at most"
        )),
    }
}

fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(format!("parameters '{key}' is {value:?}; expected 0 or 1")),
    }
}
