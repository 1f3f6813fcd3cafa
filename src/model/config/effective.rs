//! The configuration that holds for a loaded model, with everything filled in that its file left out.

use crate::model::{Rows, TensorSpec};
use crate::proto::model_config::SchedulingChoice;
use crate::proto::model_instance_group::Kind;
use crate::proto::model_version_policy::{Latest, PolicyChoice};
use crate::proto::{
    self, ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelOutput,
    ModelResponseCache, ModelVersionPolicy,
};
use crate::sched::config::StageConfig;
use crate::tensor::DataType;

/// Rows that clients may put into one request where nothing else is said; the number that Triton fills in.
const REQUEST_ROWS: usize = 4;
/// The platform's name in model repositories and in metadata.
pub const PLATFORM: &str = "onnxruntime_onnx";
/// The backend's name in model repositories.
pub const BACKEND: &str = "onnxruntime";
/// The model file's name where nothing else is said.
pub const FILENAME: &str = "model.onnx";

/// What is known of a model once it is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Loaded<'a> {
    /// The model's name.
    pub name: &'a str,
    /// Its inputs, as requests bring them.
    pub inputs: &'a [TensorSpec],
    /// Its outputs, as answers hold them.
    pub outputs: &'a [TensorSpec],
    /// Whether requests are cut into rows.
    pub rows: &'a Rows,
    /// How it is scheduled.
    pub stage: &'a StageConfig,
    /// Runs at the same time.
    pub sessions: usize,
    /// It runs on a GPU.
    pub gpu: bool,
}

/// The configuration that holds for a loaded model: what its file declares, and for the rest what was found.
///
/// Where nothing is declared, a model whose rows are independent along the first axis of every input and
/// output becomes a batching model, as Triton makes it one; `max_batch_size` then is what was measured to
/// help, and no less than Triton's 4. It is a hint to clients: larger requests are cut, not refused.
#[must_use]
pub fn effective(declared: Option<&ModelConfig>, loaded: &Loaded<'_>) -> ModelConfig {
    let mut config = declared.cloned().unwrap_or_default();
    let open = config.input.is_empty() && config.output.is_empty();
    if config.max_batch_size == 0 && open && batches(loaded) {
        let rows = loaded.stage.batch_rows_max.max(REQUEST_ROWS);
        config.max_batch_size = i32::try_from(rows).unwrap_or(i32::MAX);
    }
    let batched = config.max_batch_size > 0;
    loaded.name.clone_into(&mut config.name);
    PLATFORM.clone_into(&mut config.platform);
    BACKEND.clone_into(&mut config.backend);
    if config.input.is_empty() {
        config.input = loaded.inputs.iter().map(|spec| input(spec, batched)).collect();
    }
    if config.output.is_empty() {
        config.output = loaded.outputs.iter().map(|spec| output(spec, batched)).collect();
    }
    config.version_policy.get_or_insert_with(newest);
    if config.default_model_filename.is_empty() {
        FILENAME.clone_into(&mut config.default_model_filename);
    }
    let groups = config.instance_group.iter();
    let declared: usize = groups.map(|g| usize::try_from(g.count).unwrap_or(0).max(1)).sum();
    if declared != loaded.sessions {
        config.instance_group = vec![instances(loaded)];
    }
    config.response_cache = Some(ModelResponseCache { enable: loaded.stage.store });
    if batched {
        config.scheduling_choice = Some(scheduling(config.scheduling_choice, loaded.stage));
    }
    config
}

/// Rows stand along the first axis of everything, and that axis may have any size.
fn batches(loaded: &Loaded<'_>) -> bool {
    let first = |spec: &TensorSpec| spec.axis == Some(0);
    matches!(loaded.rows, Rows::Independent { .. })
        && loaded.inputs.iter().chain(loaded.outputs).all(first)
        && loaded.inputs.iter().all(|spec| spec.wire_shape().first() == Some(&-1))
}

/// The sizes along the axes, the batch axis left out.
fn dims(spec: &TensorSpec, batched: bool) -> Vec<i64> {
    let shape = spec.wire_shape();
    shape.get(usize::from(batched)..).unwrap_or_default().to_vec()
}

fn input(spec: &TensorSpec, batched: bool) -> ModelInput {
    ModelInput {
        name: spec.name.clone(),
        data_type: datatype(spec.datatype).into(),
        dims: dims(spec, batched),
        ..ModelInput::default()
    }
}

fn output(spec: &TensorSpec, batched: bool) -> ModelOutput {
    ModelOutput {
        name: spec.name.clone(),
        data_type: datatype(spec.datatype).into(),
        dims: dims(spec, batched),
        ..ModelOutput::default()
    }
}

fn newest() -> ModelVersionPolicy {
    ModelVersionPolicy { policy_choice: Some(PolicyChoice::Latest(Latest { num_versions: 1 })) }
}

fn instances(loaded: &Loaded<'_>) -> ModelInstanceGroup {
    ModelInstanceGroup {
        name: loaded.name.to_owned(),
        kind: if loaded.gpu { Kind::Gpu } else { Kind::Cpu }.into(),
        count: i32::try_from(loaded.sessions).unwrap_or(i32::MAX),
        ..ModelInstanceGroup::default()
    }
}

/// Dynamic batching as it happens here, whatever set it.
fn scheduling(declared: Option<SchedulingChoice>, stage: &StageConfig) -> SchedulingChoice {
    let mut batching = match declared {
        Some(SchedulingChoice::DynamicBatching(batching)) => batching,
        // The others are refused before a model is loaded.
        Some(other) => return other,
        None => ModelDynamicBatching::default(),
    };
    let preferred = stage.batch_rows_preferred.iter();
    batching.preferred_batch_size =
        preferred.map(|&rows| i32::try_from(rows).unwrap_or(i32::MAX)).collect();
    batching.max_queue_delay_microseconds =
        u64::try_from(stage.queue_delay.as_micros()).unwrap_or(u64::MAX);
    SchedulingChoice::DynamicBatching(batching)
}

/// The name that model configurations have for a datatype.
#[must_use]
pub const fn datatype(datatype: DataType) -> proto::DataType {
    match datatype {
        DataType::Bool => proto::DataType::TypeBool,
        DataType::Uint8 => proto::DataType::TypeUint8,
        DataType::Uint16 => proto::DataType::TypeUint16,
        DataType::Uint32 => proto::DataType::TypeUint32,
        DataType::Uint64 => proto::DataType::TypeUint64,
        DataType::Int8 => proto::DataType::TypeInt8,
        DataType::Int16 => proto::DataType::TypeInt16,
        DataType::Int32 => proto::DataType::TypeInt32,
        DataType::Int64 => proto::DataType::TypeInt64,
        DataType::Fp16 => proto::DataType::TypeFp16,
        DataType::Bf16 => proto::DataType::TypeBf16,
        DataType::Fp32 => proto::DataType::TypeFp32,
        DataType::Fp64 => proto::DataType::TypeFp64,
        DataType::Bytes => proto::DataType::TypeString,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Dim, Port};
    use std::time::Duration;

    fn spec(name: &str, dims: &[Dim], axis: Option<usize>) -> TensorSpec {
        let dims = Some(dims.to_vec());
        TensorSpec::new(&Port { name: name.into(), datatype: DataType::Fp32, dims }, axis)
    }

    fn filled(
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
        declared: Option<&ModelConfig>,
    ) -> ModelConfig {
        let rows = Rows::Independent { how: "said so".into() };
        let stage = StageConfig {
            batch_rows_max: 8,
            queue_delay: Duration::from_micros(50),
            ..StageConfig::default()
        };
        let loaded = Loaded {
            name: "m",
            inputs,
            outputs,
            rows: &rows,
            stage: &stage,
            sessions: 2,
            gpu: false,
        };
        effective(declared, &loaded)
    }

    #[test]
    fn a_model_of_rows_becomes_a_batching_model() {
        let config = filled(
            &[spec("x", &[Dim::Unknown, Dim::Fixed(3)], Some(0))],
            &[spec("y", &[Dim::Unknown, Dim::Named("k".into())], Some(0))],
            None,
        );
        assert_eq!((config.name.as_str(), config.platform.as_str()), ("m", PLATFORM));
        assert_eq!((config.backend.as_str(), config.max_batch_size), (BACKEND, 8));
        assert_eq!(config.input[0].dims, [3]);
        assert_eq!(config.input[0].data_type(), proto::DataType::TypeFp32);
        assert_eq!(config.output[0].dims, [-1]);
        assert_eq!(
            (config.instance_group[0].count, config.instance_group[0].kind()),
            (2, Kind::Cpu)
        );
        assert_eq!(config.default_model_filename, FILENAME);
        let Some(SchedulingChoice::DynamicBatching(batching)) = config.scheduling_choice else {
            panic!("rows are batched");
        };
        assert_eq!(batching.max_queue_delay_microseconds, 50);
    }

    #[test]
    fn a_model_without_a_leading_batch_axis_is_none() {
        let two = [Dim::Fixed(2), Dim::Unknown];
        let tables = [
            (spec("x", &two, Some(1)), spec("y", &two, Some(1))),
            (spec("x", &two, None), spec("y", &two, None)),
            (spec("x", &[], None), spec("y", &[], None)),
        ];
        for (x, y) in tables {
            let shape = x.wire_shape();
            let config = filled(&[x], &[y], None);
            assert_eq!((config.max_batch_size, &config.input[0].dims), (0, &shape));
            assert!(config.scheduling_choice.is_none());
        }
    }

    #[test]
    fn what_is_declared_stays() {
        let x = spec("x", &[Dim::Unknown, Dim::Unknown], Some(0));
        let declared =
            ModelConfig { max_batch_size: 64, input: vec![input(&x, true)], ..Default::default() };
        let config = filled(
            std::slice::from_ref(&x),
            &[spec("y", &[Dim::Unknown], Some(0))],
            Some(&declared),
        );
        assert_eq!((config.max_batch_size, &config.input), (64, &declared.input));
        assert!(config.output[0].dims.is_empty());
        // With tensors declared, no batch size means no batch axis.
        let declared = ModelConfig {
            input: vec![input(&x, false)],
            output: vec![output(&x, false)],
            ..Default::default()
        };
        let config = filled(std::slice::from_ref(&x), std::slice::from_ref(&x), Some(&declared));
        assert_eq!((config.max_batch_size, config.input[0].dims.len()), (0, 2));
    }
}
