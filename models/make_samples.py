#!/usr/bin/env python3
"""Train and write the sample models that are kept beside this script, within a minute on one core.

  digits_digit, digits_parity, digits_high   one jointly trained base, three heads: a family
  digits_tuned   the same convolutions, but its dense layer was tuned on: shares part of the base
  digits_other   the same architecture trained from another seed: shares nothing
  iris           logistic regression, ai.onnx.ml, labels are strings
  wine           random forest, ai.onnx.ml, labels are int64

Writes DEST/NAME/1/model.onnx and DEST/samples.json: held-out inputs with the outputs that numpy or scikit-learn
computed for them. The data sets come inside scikit-learn's wheel. Needs onnx, numpy and scikit-learn.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from export import Export, tensor
from network import CHANNELS, FEATURES, TASKS, Network

OPSET, IR_VERSION = 17, 8
SHOWN_DIGITS, SHOWN_ROWS = 32, 16


# -- digits
def train_digits(x, y, epochs):
    """The networks, and for each model (network, task, naming style, how its export differs)."""
    base = Network(seed=1).train(x, y, TASKS, epochs)
    tuned = base.copy(seed=2).train(x, y, ["parity"], epochs // 4, frozen=("conv1", "conv2"))
    other = Network(seed=3).train(x, y, ["digit"], epochs // 2)
    return {"digits_digit": (base, "digit", "scoped", {}),
            "digits_parity": (base, "parity", "numbered", {"dims": {"batch": "N"}}),
            "digits_high": (base, "high", "flat", {"constants": True, "inputs": {"image": "pixels"}}),
            "digits_tuned": (tuned, "parity", "scoped", {}),
            "digits_other": (other, "digit", "numbered", {})}


def digits_base(net):
    weights = {"conv1": net.w["conv1"].reshape(-1, 1, 3, 3), "conv2": net.w["conv2"].reshape(-1, CHANNELS[0], 3, 3),
               "dense": net.w["dense"].T}
    initializers = [tensor(layer + ".weight", array) for layer, array in weights.items()]
    initializers += [tensor(layer + ".bias", net.b[layer]) for layer in weights]

    def node(kind, inputs, output, **attributes):
        return helper.make_node(kind, inputs, [output], **attributes)

    same = {"kernel_shape": [3, 3], "pads": [1] * 4}
    nodes = [node("Conv", ["image", "conv1.weight", "conv1.bias"], "c1", **same), node("Relu", ["c1"], "r1"),
             node("Conv", ["r1", "conv2.weight", "conv2.bias"], "c2", **same), node("Relu", ["c2"], "r2"),
             node("MaxPool", ["r2"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
             node("Flatten", ["pool"], "flat"),
             node("Gemm", ["flat", "dense.weight", "dense.bias"], "d1"), node("Relu", ["d1"], "features")]
    graph = helper.make_graph(
        nodes, "digits", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", FEATURES])], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def digits_model(name, seed, net, task, style, options):
    export = Export(digits_base(net))
    logits = export.op("Gemm", "features", net.w[task].T, net.b[task])
    export.op("Softmax", logits, axis=-1, output="probabilities")
    export.outputs(("probabilities", TensorProto.FLOAT, ["batch", TASKS[task][0]]))
    return export.write(name, style, seed, **options)


def make_digits(epochs):
    """Yields (model name, model bytes or None, what samples.json says about it, held-out accuracy or None)."""
    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, None]
    x_fit, x_test, y_fit, y_test = train_test_split(images, data.target, test_size=0.2, random_state=0,
                                                    stratify=data.target)
    shown = x_test[:SHOWN_DIGITS]
    # Pixels are whole sixteenths: as integers with a scale they are exact and a third of the size.
    yield "digits", None, {"image": np.rint(shown * 16).astype(int).tolist(), "scale": 1 / 16,
                           "digit": y_test[:SHOWN_DIGITS].tolist()}, None
    for seed, (name, export) in enumerate(train_digits(x_fit, y_fit, epochs).items()):
        net, task = export[:2]
        sample = {"probabilities": net.predict(task, shown).round(6).tolist()}
        yield name, digits_model(name, seed, *export), sample, net.accuracy(task, x_test, y_test)


# -- tables
def table_model(name, node, features, label_type, classes):
    graph = helper.make_graph(
        [node], name, [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", features])],
        [helper.make_tensor_value_info("label", label_type, ["batch"]),
         helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def linear_classifier(name, fit, labels):
    node = helper.make_node(
        "LinearClassifier", ["x"], ["label", "probabilities"], domain="ai.onnx.ml", post_transform="SOFTMAX",
        coefficients=fit.coef_.astype(np.float32).ravel().tolist(), multi_class=0,
        intercepts=fit.intercept_.astype(np.float32).tolist(), classlabels_strings=labels)
    return table_model(name, node, fit.coef_.shape[1], TensorProto.STRING, len(labels))


def float32_limit(threshold):
    """scikit-learn compares a float32 feature with a float64 threshold; rounding the threshold down keeps every
    comparison as it was."""
    limit = np.float32(threshold)
    return float(limit if limit <= threshold else np.nextafter(limit, np.float32(-np.inf)))


def forest_nodes(forest):
    """Every node of every tree, in the words of TreeEnsembleClassifier."""
    for tree_id, estimator in enumerate(forest.estimators_):
        tree = estimator.tree_
        for n in range(tree.node_count):
            leaf = tree.children_left[n] < 0
            yield {"treeids": tree_id, "nodeids": n, "featureids": 0 if leaf else int(tree.feature[n]),
                   "values": 0.0 if leaf else float32_limit(tree.threshold[n]),
                   "modes": "LEAF" if leaf else "BRANCH_LEQ",
                   "truenodeids": 0 if leaf else int(tree.children_left[n]),
                   "falsenodeids": 0 if leaf else int(tree.children_right[n])}


def forest_votes(forest):
    """What each leaf adds to each class."""
    for tree_id, estimator in enumerate(forest.estimators_):
        tree = estimator.tree_
        for n in np.flatnonzero(tree.children_left < 0):
            share = tree.value[n][0] / tree.value[n][0].sum() / len(forest.estimators_)
            for class_id, weight in enumerate(share):
                yield {"treeids": tree_id, "nodeids": int(n), "ids": class_id, "weights": float(weight)}


def columns(prefix, rows):
    """Rows as dictionaries to one list per key, as ONNX attributes want them."""
    rows = list(rows)
    return {prefix + key: [row[key] for row in rows] for key in rows[0]}


def forest_classifier(name, fit, _labels):
    node = helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "probabilities"], domain="ai.onnx.ml", post_transform="NONE",
        classlabels_int64s=[int(c) for c in fit.classes_], **columns("nodes_", forest_nodes(fit)),
        **columns("class_", forest_votes(fit)))
    return table_model(name, node, fit.n_features_in_, TensorProto.INT64, len(fit.classes_))


TABLES = {"iris": (load_iris, LogisticRegression(max_iter=1000), linear_classifier),
          "wine": (load_wine, RandomForestClassifier(12, max_depth=4, random_state=0), forest_classifier)}


def make_tables():
    """As make_digits(), for the tabular models."""
    for name, (load, classifier, convert) in TABLES.items():
        data = load()
        x_fit, x_test, y_fit, y_test = train_test_split(data.data.astype(np.float32), data.target, test_size=0.3,
                                                        random_state=0, stratify=data.target)
        fit = classifier.fit(x_fit, y_fit)
        names = [str(n) for n in data.target_names]
        shown = x_test[:SHOWN_ROWS]
        labels = fit.predict(shown).tolist()
        sample = {"x": shown.astype(float).round(4).tolist(),
                  "label": [names[label] for label in labels] if name == "iris" else labels,
                  "probabilities": fit.predict_proba(shown).round(6).tolist()}
        yield name, convert(name, fit, names), sample, fit.score(x_test, y_test)


# -- main
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dest", type=Path, nargs="?", default=Path(__file__).resolve().parent,
                        help="folder to fill: DEST/NAME/1/model.onnx (default: where this script is)")
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()
    samples = {}
    for make in (lambda: make_digits(args.epochs), make_tables):
        for name, model, sample, accuracy in make():
            samples[name] = sample
            if model:
                path = args.dest / name / "1" / "model.onnx"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(model)
                print(f"{name:15} {len(model):>6} bytes, held-out accuracy {accuracy:.3f}", flush=True)
    (args.dest / "samples.json").write_text(json.dumps(samples) + "\n")


if __name__ == "__main__":
    main()
