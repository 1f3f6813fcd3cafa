//! How many runs of a model go side by side, and where.

use super::session::Device;
use crate::proto::ModelInstanceGroup;
use crate::proto::model_instance_group::Kind;

/// Instances past which a number is a slip of the finger.
const INSTANCES_MAX: usize = 1024;

/// The sessions that instance groups ask for, and their device; none where nothing is said.
///
/// # Errors
/// A sentence, for groups that cannot be served.
pub(super) fn instances(
    groups: &[ModelInstanceGroup],
    notes: &mut Vec<String>,
) -> Result<(Option<usize>, Option<Device>), String> {
    let (mut sessions, mut device) = (0_usize, None);
    for group in groups {
        let (count, kind) = instance(group, notes)?;
        sessions = sessions.saturating_add(count);
        if let (Some(one), Some(other)) = (device, kind)
            && one != other
        {
            return Err(
                "instance_group asks for the CPU and a GPU at once; expected one kind for all"
                    .into(),
            );
        }
        device = device.or(kind);
    }
    if sessions > INSTANCES_MAX {
        return Err(format!(
            "instance_group asks for {sessions} instances; expected at most {INSTANCES_MAX}"
        ));
    }
    Ok(((sessions > 0).then_some(sessions), device))
}

fn instance(
    group: &ModelInstanceGroup,
    notes: &mut Vec<String>,
) -> Result<(usize, Option<Device>), String> {
    let ModelInstanceGroup {
        name: _,
        kind,
        count,
        rate_limiter,
        gpus,
        secondary_devices,
        profile,
        passive,
        host_policy,
    } = group;
    if *passive {
        return Err("instance_group.passive is not served: every instance runs; remove it".into());
    }
    let ignored = [
        (rate_limiter.is_some(), "rate_limiter", "cores are given out by the scheduler"),
        (!gpus.is_empty(), "gpus", "the provider's first device is used"),
        (!secondary_devices.is_empty(), "secondary_devices", "there are none"),
        (!profile.is_empty(), "profile", "it belongs to TensorRT engines"),
        (!host_policy.is_empty(), "host_policy", "instances run on any core"),
    ];
    let set = ignored.iter().filter(|(set, ..)| *set);
    notes.extend(set.map(|(_, field, why)| format!("instance_group.{field} ({why})")));
    let device = match Kind::try_from(*kind) {
        Ok(Kind::Auto | Kind::Model) => None,
        Ok(Kind::Cpu) => Some(Device::Cpu),
        Ok(Kind::Gpu) => Some(Device::Gpu),
        Err(_) => {
            return Err(format!(
                "instance_group.kind is {kind}; expected KIND_AUTO, KIND_CPU or KIND_GPU"
            ));
        }
    };
    let count = usize::try_from(*count)
        .map_err(|_| format!("instance_group.count is {count}; expected 1 or more"))?;
    Ok((count.max(1), device))
}
