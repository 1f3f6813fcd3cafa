"""Small models with every feature that a client can name, in the layout of a model repository."""
import onnx
from onnx import TensorProto, helper

ROWS_MAX = 8
LABELS = ["ash", "birch", "cedar", "elm"]
TABLE = [10, 20, 30]

CONFIG_DOUBLE = f"""
max_batch_size: {ROWS_MAX}
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "labels.txt" }} ]
dynamic_batching {{ }}
"""


def _model(nodes, inputs, outputs, constants=()):
    def values(rows):
        return [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in rows]
    graph = helper.make_graph(nodes, "small", values(inputs), values(outputs), list(constants))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    onnx.checker.check_model(made)
    return made


def double():
    """y = x + x, rows of four."""
    return _model([helper.make_node("Add", ["x", "x"], ["y"])],
                  [("x", TensorProto.FLOAT, ["rows", 4])], [("y", TensorProto.FLOAT, ["rows", 4])])


def words():
    """The same strings back."""
    return _model([helper.make_node("Identity", ["in"], ["out"])],
                  [("in", TensorProto.STRING, ["a", "b"])], [("out", TensorProto.STRING, ["a", "b"])])


def pair():
    """Two inputs and two outputs of other datatypes: halves negated, integers as they are."""
    rows = [("halves", TensorProto.FLOAT16, ["n", 2]), ("wholes", TensorProto.INT64, ["n"])]
    outs = [("negated", TensorProto.FLOAT16, ["n", 2]), ("same", TensorProto.INT64, ["n"])]
    return _model([helper.make_node("Neg", ["halves"], ["negated"]),
                   helper.make_node("Identity", ["wholes"], ["same"])], rows, outs)


def plus(number):
    """out = in + number."""
    constant = helper.make_tensor("number", TensorProto.FLOAT, [1], [float(number)])
    return _model([helper.make_node("Add", ["in", "number"], ["out"])],
                  [("in", TensorProto.FLOAT, ["n"])], [("out", TensorProto.FLOAT, ["n"])], [constant])


def lookup():
    """An entry of a table of three; fails while it runs where there is none."""
    table = helper.make_tensor("table", TensorProto.INT64, [len(TABLE)], TABLE)
    return _model([helper.make_node("Gather", ["table", "index"], ["entry"])],
                  [("index", TensorProto.INT64, ["n"])], [("entry", TensorProto.INT64, ["n"])], [table])


def put(folder, name, versions, files=None):
    """Writes one model: versions by number, other files by name."""
    for version, model in versions.items():
        place = folder / name / str(version)
        place.mkdir(parents=True, exist_ok=True)
        onnx.save(model, place / "model.onnx")
    for file, text in (files or {}).items():
        (folder / name / file).write_text(text)


def write(folder):
    """Writes all of them."""
    put(folder, "double", {1: double()}, {"config.pbtxt": CONFIG_DOUBLE, "labels.txt": "\n".join(LABELS) + "\n"})
    put(folder, "words", {1: words()})
    put(folder, "pair", {1: pair()})
    put(folder, "versions", {1: plus(1), 2: plus(2)}, {"config.pbtxt": "version_policy { all { } }\n"})
    put(folder, "lookup", {1: lookup()})
