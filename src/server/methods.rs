//! The gRPC methods that exist and what each one asks for; what is not here is not offered.

use super::rights::Operation;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

/// The inference service; its methods follow.
pub(super) const INFERENCE: &str = "/inference.GRPCInferenceService/";
/// What every method that is not of the protocol itself begins with.
const OTHERS: &str = "/grpc.";
/// gRPC's health service.
pub(super) const HEALTH: &str = "/grpc.health.v1.Health/";

/// Whether the caller of a method sends messages as it likes, with any pause between them.
pub(super) fn streams(path: &str) -> bool {
    path.ends_with("/ModelStreamInfer") || path.ends_with("/ServerReflectionInfo")
}

/// Whether a request wants to be answered as gRPC answers: by what it says it is, or by where it goes.
pub(super) fn is_grpc(path: &str, headers: &HeaderMap) -> bool {
    let says = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    path.starts_with(INFERENCE)
        || path.starts_with(OTHERS)
        || headers.get(CONTENT_TYPE).is_some_and(says)
}

/// What a method, named by its path, asks for; none for a method that is not known.
pub(super) fn operation(path: &str) -> Option<Operation> {
    if let Some(method) = path.strip_prefix(INFERENCE) {
        return inference(method);
    }
    match path {
        "/grpc.health.v1.Health/Check"
        | "/grpc.health.v1.Health/List"
        | "/grpc.health.v1.Health/Watch" => Some(Operation::Health),
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo" => Some(Operation::Describe),
        _ => None,
    }
}

fn inference(method: &str) -> Option<Operation> {
    Some(match method {
        "ServerLive" | "ServerReady" | "ModelReady" => Operation::Health,
        "ServerMetadata" | "ModelMetadata" | "ModelConfig" | "RepositoryIndex" => {
            Operation::Describe
        }
        // Both read and change; whether they may change is decided when the message is read.
        "TraceSetting" | "LogSettings" => Operation::Describe,
        "ModelStatistics" => Operation::Observe,
        "ModelInfer" | "ModelStreamInfer" => Operation::Infer,
        "RepositoryModelLoad" | "RepositoryModelUnload" => Operation::ChangeModels,
        "SystemSharedMemoryStatus"
        | "SystemSharedMemoryRegister"
        | "SystemSharedMemoryUnregister"
        | "CudaSharedMemoryStatus"
        | "CudaSharedMemoryRegister"
        | "CudaSharedMemoryUnregister" => Operation::SharedMemory,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use prost_types::FileDescriptorSet;

    #[test]
    fn every_method_of_the_definition_is_in_the_table() {
        let set = FileDescriptorSet::decode(crate::proto::DESCRIPTORS).unwrap();
        let services = set.file.iter().flat_map(|file| &file.service);
        let methods: Vec<&str> = services.flat_map(|s| &s.method).map(|m| m.name()).collect();
        assert_eq!(methods.len(), 20, "{methods:?}");
        for method in methods {
            assert!(operation(&format!("{INFERENCE}{method}")).is_some(), "{method}");
        }
    }

    #[test]
    fn what_changes_the_daemon_says_so() {
        let changing = [
            "RepositoryModelLoad",
            "RepositoryModelUnload",
            "SystemSharedMemoryRegister",
            "SystemSharedMemoryUnregister",
            "CudaSharedMemoryRegister",
        ];
        for method in changing {
            let operation = operation(&format!("{INFERENCE}{method}"));
            assert!(operation.is_some_and(Operation::changes_daemon), "{method}");
        }
    }

    #[test]
    fn unknown_methods_and_other_spellings_are_nothing() {
        for path in [
            "/inference.GRPCInferenceService/",
            "/inference.GRPCInferenceService/Nope",
            "/inference.GRPCInferenceService/ModelInfer/",
            "/inference.GRPCInferenceService//ModelInfer",
            "/inference.GRPCInferenceService/modelinfer",
            "/inference.GRPCInferenceService/Model%49nfer",
            "/grpc.health.v1.Health/Nope",
            "/",
            "",
        ] {
            assert_eq!(operation(path), None, "{path}");
        }
    }
}
