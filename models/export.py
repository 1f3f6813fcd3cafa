"""Adds heads to a base model and writes the result as if somebody had exported it on their own.

Real model families do not come as one base and several heads: each head is exported together with a full copy of
its base, and every exporter names tensors, orders weights and sorts nodes in its own way. `Export.write` imitates
that, so that graftd has to recognise a base by what it computes and by nothing else.
"""
import heapq
import random

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, helper, numpy_helper


class BuildError(Exception):
    """The base model is not what the builder expects."""


# -- parts of a graph
def copies(messages):
    """Independent copies: protobuf lists hold references, and clearing a list would empty what it held."""
    return [type(m).FromString(m.SerializeToString()) for m in messages]


def tensor(name, array):
    return numpy_helper.from_array(np.ascontiguousarray(array), name)


def rename(graph, table):
    """Rename tensors everywhere in a graph without subgraphs."""
    for item in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.name = table.get(item.name, item.name)
    for node in graph.node:
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            raise BuildError(f"{graph.name}: a {node.op_type} node holds a subgraph, but only flat graphs can be "
                             "renamed; extend rename() to follow it, or leave this model out of the families")
        node.input[:] = [table.get(name, name) for name in node.input]
        node.output[:] = [table.get(name, name) for name in node.output]


def reachable(graph, outputs):
    """Names of all tensors that the given outputs depend on, themselves included."""
    producer = {name: node for node in graph.node for name in node.output}
    needed, queue = set(), list(outputs)
    while queue:
        name = queue.pop()
        if name and name not in needed:
            needed.add(name)
            queue.extend(producer[name].input if name in producer else [])
    return needed


def prune(graph):
    """Drop every node, weight and input that no graph output needs."""
    needed = reachable(graph, [output.name for output in graph.output])
    for field, wanted in ((graph.node, lambda node: needed.intersection(node.output)),
                          (graph.initializer, lambda weight: weight.name in needed),
                          (graph.input, lambda value: value.name in needed)):
        kept = copies(item for item in field if wanted(item))
        del field[:]
        field.extend(kept)


def shuffled(nodes, rng):
    """The nodes in a random order that is still topological."""
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    waiting = [{producer[name] for name in node.input if name in producer} for node in nodes]
    users = [[] for _ in nodes]
    for index, before in enumerate(waiting):
        for other in before:
            users[other].append(index)
    ready = [(rng.random(), index) for index, before in enumerate(waiting) if not before]
    heapq.heapify(ready)
    order = []
    while ready:
        _, index = heapq.heappop(ready)
        order.append(nodes[index])
        for user in users[index]:
            waiting[user].discard(index)
            if not waiting[user]:
                heapq.heappush(ready, (rng.random(), user))
    return order


# -- building
class Export:
    """A copy of a base model; add a head with `op`, name what comes out with `outputs`, then `write`."""

    def __init__(self, base):
        self.model = ModelProto()
        self.model.CopyFrom(base)
        self.graph = self.model.graph
        self.count = 0

    def const(self, array):
        self.count += 1
        self.graph.initializer.append(tensor(f"head.const{self.count}", array))
        return f"head.const{self.count}"

    def op(self, kind, *inputs, output=None, **attributes):
        """Append a node; inputs are tensor names or arrays. Returns the name of its output."""
        self.count += 1
        output = output or f"head.value{self.count}"
        names = [value if isinstance(value, str) else self.const(value) for value in inputs]
        self.graph.node.append(helper.make_node(kind, names, [output], name=f"head.node{self.count}", **attributes))
        return output

    def outputs(self, *specs):
        """The graph's outputs from now on: (name, element type, shape) each."""
        del self.graph.output[:]
        self.graph.output.extend(helper.make_tensor_value_info(*spec) for spec in specs)
        return self

    def reorder_inputs(self, *order):
        values = copies(self.graph.input[index] for index in order)
        del self.graph.input[:]
        self.graph.input.extend(values)

    def write(self, name, style, seed, inputs=None, dims=None, constants=False):
        """Serialize under other names and in another order.

        style      how inner tensors are named: "scoped", "numbered" or "flat", after three common exporters
        inputs     graph inputs to rename, old to new; dims the same for symbolic dimensions
        constants  write weights as Constant nodes instead of initializers, as some exporters do
        """
        rng = random.Random(seed)
        prune(self.graph)
        del self.graph.value_info[:]
        rename(self.graph, self._names(name, style, inputs or {}))
        for value in (*self.graph.input, *self.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in (dims or {}):
                    dim.dim_param = dims[dim.dim_param]
        self._reorder(name, style, rng, constants)
        self.graph.name = name
        onnx.checker.check_model(self.model)
        return self.model.SerializeToString()

    def _names(self, name, style, inputs):
        """Old to new name of every tensor that is not the model's face to the world."""
        fixed = {value.name for value in (*self.graph.input, *self.graph.output)}
        inner = [x for node in self.graph.node for x in node.output] + [w.name for w in self.graph.initializer]
        table = dict(inputs)
        for number, old in enumerate(x for x in inner if x and x not in fixed):
            table[old] = {"scoped": f"{name}/{old}", "numbered": f"onnx::{number + 100}",
                          "flat": f"val_{number}"}[style]
        return table

    def _reorder(self, name, style, rng, constants):
        weights, nodes = copies(self.graph.initializer), copies(self.graph.node)
        rng.shuffle(weights)
        nodes = shuffled(nodes, rng)
        if constants:
            nodes = [helper.make_node("Constant", [], [w.name], value=w) for w in weights] + nodes
            weights = []
        for number, node in enumerate(nodes):
            node.name = f"n{number}" if style == "flat" else f"{name}/{node.op_type}_{number}"
            node.doc_string = ""
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(nodes)
        self.graph.initializer.extend(weights)
