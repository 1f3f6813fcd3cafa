//! The devices there are: the CPU's cores, and NVIDIA GPUs where the driver's library is found.

use nvml_wrapper::Nvml;

/// One GPU as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its number, as execution providers count.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its memory in bytes.
    pub memory_bytes: u64,
}

/// The GPUs of this machine.
///
/// # Errors
/// A sentence, when there is no driver library or it refuses: then there is no GPU to use.
pub fn gpus() -> Result<Vec<Gpu>, String> {
    let nvml = Nvml::init().map_err(|error| format!("no NVIDIA driver library: {error}"))?;
    let count = nvml.device_count().map_err(|error| error.to_string())?;
    (0..count)
        .map(|index| {
            let device = nvml.device_by_index(index)?;
            let (name, memory_bytes) = (device.name()?, device.memory_info()?.total);
            Ok(Gpu { index, name, memory_bytes })
        })
        .collect::<Result<_, nvml_wrapper::error::NvmlError>>()
        .map_err(|error| error.to_string())
}
