//! One pass over every node and tensor of a file: operators used, files referred to.
//!
//! Separate because it must miss nothing: weights and operators hide in branches, in loop bodies, in constants and
//! in functions, and each such place is named once, here.

use super::error::GraphError;
use super::external::external_data;
use super::proto::{AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto};
use super::read::{Operator, domain};
use std::collections::BTreeSet;

/// What is gathered from every node and tensor of a file.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) external_files: BTreeSet<String>,
    pub(super) operators: BTreeSet<Operator>,
}

impl Survey {
    pub(super) fn graph(&mut self, graph: &GraphProto) -> Result<(), GraphError> {
        graph.initializer.iter().try_for_each(|tensor| self.tensor(tensor))?;
        graph.sparse_initializer.iter().try_for_each(|sparse| self.sparse(sparse))?;
        self.nodes(&graph.node)
    }

    pub(super) fn nodes(&mut self, nodes: &[NodeProto]) -> Result<(), GraphError> {
        for node in nodes {
            let domain = domain(node.domain()).to_owned();
            self.operators.insert(Operator { domain, op_type: node.op_type().to_owned() });
            node.attribute.iter().try_for_each(|attribute| self.attribute(attribute))?;
        }
        Ok(())
    }

    pub(super) fn attribute(&mut self, attribute: &AttributeProto) -> Result<(), GraphError> {
        let mut tensors = attribute.t.as_deref().into_iter().chain(&attribute.tensors);
        tensors.try_for_each(|tensor| self.tensor(tensor))?;
        let mut sparse =
            attribute.sparse_tensor.as_deref().into_iter().chain(&attribute.sparse_tensors);
        sparse.try_for_each(|sparse| self.sparse(sparse))?;
        let mut graphs = attribute.g.as_deref().into_iter().chain(&attribute.graphs);
        graphs.try_for_each(|graph| self.graph(graph))
    }

    fn sparse(&mut self, sparse: &SparseTensorProto) -> Result<(), GraphError> {
        let mut parts = sparse.values.iter().chain(&sparse.indices);
        parts.try_for_each(|tensor| self.tensor(tensor))
    }

    fn tensor(&mut self, tensor: &TensorProto) -> Result<(), GraphError> {
        if let Some(external) = external_data(tensor)? {
            self.external_files.insert(external.location);
        }
        Ok(())
    }
}
