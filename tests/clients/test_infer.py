"""Inference through every stock client: numbers, strings, versions, refusals, compression, classes."""
import queue
import threading

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

import cases
import kserve_ask
import models
import ways
from daemon import PATIENCE

X = np.array([[1, 2, 3, 4], [0.5, -0.5, 1e30, -0.0]], np.float32)
TEXTS = np.array([["", "two words", "quote\" \\ slash"], ["\u00fcml\u00e4ut", "\U0001f980", "x" * 1000]])
HTTP = ["http", "http.aio"]
GRPC = ["grpc", "grpc unix", "grpc.aio", "grpc.aio unix"]
KSERVE = ["kserve", "kserve unix", "kserve grpc unix"]


def bytes_of(texts):
    """Strings as the clients want them: objects that are bytes."""
    return np.array([text.encode() for text in texts.ravel()], object).reshape(texts.shape)


class Answers(cases.Case):
    def test_numbers(self):
        for name in ways.NAMES:
            with self.way(name) as way:
                answer = way.infer("double", [("x", "FP32", X)], request_id="numbers")
                self.assertEqual(list(answer), ["y"])
                np.testing.assert_array_equal(answer["y"], X + X)

    def test_strings(self):
        for name in ways.NAMES:
            with self.way(name) as way:
                answer = way.infer("words", [("in", "BYTES", bytes_of(TEXTS))])["out"]
                self.assertEqual(answer.shape, TEXTS.shape)
                self.assertEqual([bytes(text).decode() for text in answer.ravel()], TEXTS.ravel().tolist())

    def test_two_datatypes(self):
        halves, wholes = np.array([[1, 2], [3, 65504]], np.float16), np.array([2**53 + 1, -2**63], np.int64)
        for name in ways.NAMES:
            with self.way(name) as way:
                answer = way.infer("pair", [("halves", "FP16", halves), ("wholes", "INT64", wholes)])
                np.testing.assert_array_equal(answer["negated"], -halves)
                np.testing.assert_array_equal(answer["same"], wholes)

    def test_json_instead_of_bytes(self):
        x = ways.tensors(triton_http, [("x", "FP32", X)], binary_data=False)
        texts = ways.tensors(triton_http, [("in", "BYTES", bytes_of(TEXTS))], binary_data=False)
        with triton_http.InferenceServerClient(self.daemon.tcp) as client:
            y = client.infer("double", x, outputs=[triton_http.InferRequestedOutput("y", binary_data=False)])
            same = client.infer("words", texts, outputs=[triton_http.InferRequestedOutput("out", binary_data=False)])
        self.assertNotIn("parameters", y.get_output("y"))
        np.testing.assert_array_equal(y.as_numpy("y"), X + X)
        self.assertEqual(same.get_output("out")["data"], TEXTS.ravel().tolist())

    def test_json_from_kserve(self):
        for name in KSERVE:
            with self.way(name) as way:
                answer = way.infer("double", [("x", "FP32", X)], binary=False)
                np.testing.assert_array_equal(answer["y"], X + X)

    def test_versions(self):
        x = [("in", "FP32", np.array([1], np.float32))]
        for name in HTTP + GRPC:
            with self.way(name) as way:
                for version, plus in (("1", 1), ("2", 2), ("", 2)):
                    self.assertEqual(way.infer("versions", x, model_version=version)["out"].tolist(), [1 + plus])

    def test_id_and_version_come_back(self):
        x = [("x", "FP32", X)]
        with triton_http.InferenceServerClient(self.daemon.tcp) as client:
            said = client.infer("double", ways.tensors(triton_http, x), request_id="mine").get_response()
            self.assertEqual((said["id"], said["model_name"], said["model_version"]), ("mine", "double", "1"))
        with triton_grpc.InferenceServerClient(self.daemon.uds) as client:
            said = client.infer("double", ways.tensors(triton_grpc, x), request_id="mine").get_response()
            self.assertEqual((said.id, said.model_name, said.model_version), ("mine", "double", "1"))

    def test_many_at_once_each_its_own(self):
        numbers = [np.full((1, 4), number, np.float32) for number in range(64)]
        with triton_http.InferenceServerClient(self.daemon.tcp, concurrency=16) as client:
            sent = [client.async_infer("double", ways.tensors(triton_http, [("x", "FP32", x)])) for x in numbers]
            for x, promise in zip(numbers, sent):
                np.testing.assert_array_equal(promise.get_result().as_numpy("y"), x + x)
        with triton_grpc.InferenceServerClient(self.daemon.uds) as client:
            answers = queue.Queue()
            for x in numbers:
                client.async_infer("double", ways.tensors(triton_grpc, [("x", "FP32", x)]), request_id=str(x[0, 0]),
                                   callback=lambda result, error: answers.put((result, error)))
            for _ in numbers:
                result, error = answers.get(timeout=PATIENCE)
                self.assertIsNone(error)
                twice = 2 * float(result.get_response().id)
                np.testing.assert_array_equal(result.as_numpy("y"), np.full((1, 4), twice, np.float32))

    def test_a_cancelled_call_leaves_the_others_alone(self):
        with triton_grpc.InferenceServerClient(self.daemon.uds) as client:
            ended = threading.Event()
            call = client.async_infer("double", ways.tensors(triton_grpc, [("x", "FP32", X)]),
                                      callback=lambda result, error: ended.set())
            call.cancel()
            self.assertTrue(ended.wait(PATIENCE))
            y = client.infer("double", ways.tensors(triton_grpc, [("x", "FP32", X)])).as_numpy("y")
            np.testing.assert_array_equal(y, X + X)


class Compression(cases.Case):
    def test_http_both_directions(self):
        x = [("x", "FP32", np.zeros((models.ROWS_MAX, 4), np.float32))]
        for name in HTTP:
            with self.way(name) as way:
                for algorithm in ("gzip", "deflate"):
                    for keyword in ("request_compression_algorithm", "response_compression_algorithm"):
                        answer = way.infer("double", x, **{keyword: algorithm})
                        np.testing.assert_array_equal(answer["y"], x[0][2])

    def test_grpc(self):
        for name in GRPC:
            with self.way(name) as way:
                for algorithm in ("gzip", "deflate"):
                    answer = way.infer("double", [("x", "FP32", X)], compression_algorithm=algorithm)
                    np.testing.assert_array_equal(answer["y"], X + X)


class Classes(cases.Case):
    def test_the_highest_with_their_labels(self):
        x = np.array([[1, 4, 2, 3], [4, 3, 2, 1]], np.float32)
        best = [["birch", "elm"], ["ash", "birch"]]
        for name in HTTP + GRPC:
            package = triton_http if name in HTTP else triton_grpc
            with self.way(name) as way:
                wanted = [package.InferRequestedOutput("y", class_count=2)]
                classes = way.infer("double", [("x", "FP32", x)], outputs=wanted)["y"]
                self.assertEqual(classes.shape, (2, 2))
                said = [[bytes(entry).decode().split(":") for entry in row] for row in classes]
                self.assertEqual([[label for _, _, label in row] for row in said], best)
                self.assertEqual([[float(value) for value, _, _ in row] for row in said], [[8, 6], [8, 6]])
                self.assertEqual([[models.LABELS[int(at)] for _, at, _ in row] for row in said], best)


class Refusals(cases.Case):
    FAULTS = [
        ("unknown model", "nobody", [("x", "FP32", X)], 404, "NOT_FOUND", "nobody"),
        ("unknown input", "double", [("z", "FP32", X)], 400, "INVALID_ARGUMENT", "z"),
        ("wrong datatype", "double", [("x", "INT32", X.astype(np.int32))], 400, "INVALID_ARGUMENT", "INT32"),
        ("wrong shape", "double", [("x", "FP32", X[:, :3].copy())], 400, "INVALID_ARGUMENT", "x"),
        ("too many rows", "double", [("x", "FP32", np.zeros((models.ROWS_MAX + 1, 4), np.float32))], 400,
         "INVALID_ARGUMENT", str(models.ROWS_MAX)),
    ]

    def test_each_client_understands_why(self):
        for name in ways.NAMES:
            kind = kserve_ask.Refused if name in KSERVE else InferenceServerException
            with self.way(name) as way:
                for fault, model, inputs, http, grpc, text in self.FAULTS:
                    status = grpc if "grpc" in name else http
                    with self.subTest(way=name, fault=fault), self.refused(kind, status, text):
                        way.infer(model, inputs)

    def test_a_failure_inside_the_model_says_so(self):
        beyond = [("index", "INT64", np.array([len(models.TABLE)], np.int64))]
        good = [("index", "INT64", np.array([1], np.int64))]
        for name in HTTP + GRPC:
            with self.way(name) as way:
                with self.assertRaisesRegex(InferenceServerException, r"(?i)index|indices|bounds"):
                    way.infer("lookup", beyond)
                self.assertEqual(way.infer("lookup", good)["entry"].tolist(), [models.TABLE[1]])

    def test_an_unknown_output_is_named(self):
        with triton_http.InferenceServerClient(self.daemon.tcp) as client:
            with self.refused(InferenceServerException, 400, "nothing_like_it"):
                client.infer("double", ways.tensors(triton_http, [("x", "FP32", X)]),
                             outputs=[triton_http.InferRequestedOutput("nothing_like_it")])
