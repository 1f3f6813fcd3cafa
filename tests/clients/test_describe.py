"""What a client can ask and change beside inference: health, metadata, configuration, counts, models, settings."""
import asyncio

import grpc
import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException

import cases
import kserve_ask
import models
import ways

X = [("x", "FP32", np.arange(8, dtype=np.float32).reshape(2, 4))]


class Asked(cases.Case):
    """One blocking client of each protocol, for a test."""

    def setUp(self):
        self.http = triton_http.InferenceServerClient(self.daemon.tcp)
        self.addCleanup(self.http.close)
        self.grpc = triton_grpc.InferenceServerClient(self.daemon.uds)
        self.addCleanup(self.grpc.close)

    def both(self, method, *arguments):
        """The same question over both protocols, gRPC's answer as JSON."""
        return (("http", getattr(self.http, method)(*arguments)),
                ("grpc", getattr(self.grpc, method)(*arguments, as_json=True)))


class Descriptions(Asked):
    def test_health_over_every_client(self):
        for client in (self.http, self.grpc):
            self.assertTrue(client.is_server_live() and client.is_server_ready() and client.is_model_ready("double"))
            self.assertFalse(client.is_model_ready("nobody"))

        async def ask(package, address):
            async with package.InferenceServerClient(address) as client:
                return (await client.is_server_live() and await client.is_server_ready()
                        and await client.is_model_ready("double"))
        self.assertTrue(asyncio.run(ask(triton_http_aio, self.daemon.tcp)))
        self.assertTrue(asyncio.run(ask(triton_grpc_aio, self.daemon.uds)))

    def test_kserve_reads_the_health(self):
        for kind, address in (("rest", self.daemon.tcp), ("rest", self.daemon.uds), ("grpc", self.daemon.uds)):
            with self.subTest(kind=kind, address=address):
                self.assertEqual(ways.apart().submit(kserve_ask.health, kind, address, "double").result(),
                                 (True, True, True))

    def test_the_health_service_of_grpc(self):
        with grpc.insecure_channel(self.daemon.uds) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            self.assertEqual(check(b""), bytes([8, 1]))

    def test_the_server_says_what_it_can(self):
        for protocol, said in self.both("get_server_metadata"):
            self.assertEqual(said["name"], "graftd", protocol)
            offered = {"binary_tensor_data", "model_configuration", "model_repository", "statistics"}
            self.assertLessEqual(offered, set(said["extensions"]))

    def test_metadata(self):
        for protocol, said in self.both("get_model_metadata", "double"):
            self.assertEqual((said["name"], said["versions"]), ("double", ["1"]), protocol)
            inputs = [(tensor["name"], tensor["datatype"], [int(size) for size in tensor["shape"]])
                      for tensor in said["inputs"]]
            self.assertEqual(inputs, [("x", "FP32", [-1, 4])])
        for protocol, said in self.both("get_model_metadata", "versions"):
            self.assertEqual(said["versions"], ["1", "2"], protocol)

    def test_configuration(self):
        for protocol, said in self.both("get_model_config", "double"):
            config = said["config"] if protocol == "grpc" else said
            self.assertEqual((config["name"], config["max_batch_size"]), ("double", models.ROWS_MAX))
            (given,), (made,) = config["input"], config["output"]
            self.assertEqual((given["data_type"], [int(size) for size in given["dims"]]), ("TYPE_FP32", [4]))
            self.assertEqual(made["label_filename"], "labels.txt")
            self.assertIn("dynamic_batching", config)
        for protocol, said in self.both("get_model_config", "words"):
            config = said["config"] if protocol == "grpc" else said
            self.assertEqual(config["input"][0]["data_type"], "TYPE_STRING", protocol)

    def test_what_is_unknown_is_refused(self):
        for method in ("get_model_metadata", "get_model_config", "get_inference_statistics"):
            with self.subTest(method=method, protocol="http"):
                with self.refused(InferenceServerException, 404, "nobody"):
                    getattr(self.http, method)("nobody")
            with self.subTest(method=method, protocol="grpc"):
                with self.refused(InferenceServerException, "NOT_FOUND", "nobody"):
                    getattr(self.grpc, method)("nobody")


class Counts(Asked):
    def counts(self, client):
        """Requests that succeeded and failed, rows, runs, and the nanoseconds of success."""
        (said,) = self.asked(client, "double")
        inference = said["inference_stats"]
        return {"success": int(inference["success"].get("count", 0)), "fail": int(inference["fail"].get("count", 0)),
                "rows": int(said.get("inference_count", 0)), "runs": int(said.get("execution_count", 0)),
                "time": int(inference["success"].get("ns", 0))}

    @staticmethod
    def asked(client, *model):
        more = {} if isinstance(client, triton_http.InferenceServerClient) else {"as_json": True}
        return client.get_inference_statistics(*model, **more)["model_stats"]

    def test_requests_rows_and_runs(self):
        sides = (("http", self.http, triton_http, 1), ("grpc", self.grpc, triton_grpc, 2))
        for protocol, client, package, seed in sides:
            with self.subTest(protocol=protocol):
                before = self.counts(client)
                rows = np.random.default_rng(seed).random((3, 4), np.float32)
                client.infer("double", ways.tensors(package, [("x", "FP32", rows)]))
                after = self.counts(client)
                grown = {name: after[name] - before[name] for name in after}
                self.assertGreater(grown.pop("time"), 0)
                self.assertEqual(grown, {"success": 1, "fail": 0, "rows": 3, "runs": 1})

    def test_all_models_and_versions(self):
        for client in (self.http, self.grpc):
            said = {(entry["name"], entry["version"]) for entry in self.asked(client)}
            self.assertLessEqual({("double", "1"), ("versions", "1"), ("versions", "2")}, said)


class Repository(Asked):
    def index(self):
        """Models and states, as both protocols say them."""
        http = self.http.get_model_repository_index()
        grpc_said = self.grpc.get_model_repository_index(as_json=True)["models"]
        states = [{(entry["name"], entry.get("version", ""), entry.get("state", "")) for entry in said}
                  for said in (http, grpc_said)]
        self.assertEqual(states[0], states[1])
        return states[0]

    def test_the_index(self):
        ready = {("double", "1", "READY"), ("versions", "1", "READY"), ("versions", "2", "READY")}
        self.assertLessEqual(ready, self.index())

    def test_unloading_and_loading(self):
        for protocol, client, package in (("http", self.http, triton_http), ("grpc", self.grpc, triton_grpc)):
            with self.subTest(protocol=protocol):
                client.unload_model("words")
                self.assertFalse(client.is_model_ready("words"))
                self.assertNotIn(("words", "1", "READY"), self.index())
                client.load_model("words")
                self.assertTrue(client.is_model_ready("words"))
                text = np.array([[b"back"]], object)
                same = client.infer("words", ways.tensors(package, [("in", "BYTES", text)])).as_numpy("out")
                self.assertEqual(same.tolist(), text.tolist())

    def test_a_model_that_came_later_and_changed(self):
        for number in (5, 6):
            models.put(self.folder, "late", {1: models.plus(number)})
            self.http.load_model("late")
            x = [("in", "FP32", np.array([1], np.float32))]
            answer = self.grpc.infer("late", ways.tensors(triton_grpc, x)).as_numpy("out")
            self.assertEqual(answer.tolist(), [1 + number])

    def test_a_broken_model_says_why(self):
        place = self.folder / "broken" / "1"
        place.mkdir(parents=True)
        (place / "model.onnx").write_text("no model at all")
        with self.assertRaisesRegex(InferenceServerException, "broken"):
            self.http.load_model("broken")
        with self.assertRaisesRegex(InferenceServerException, "broken"):
            self.grpc.load_model("broken")
        self.assertFalse(self.http.is_model_ready("broken"))

    def test_a_model_that_is_not_there(self):
        for client in (self.http, self.grpc):
            with self.assertRaisesRegex(InferenceServerException, "nobody"):
                client.load_model("nobody")


class Settings(Asked):
    def test_logging(self):
        self.addCleanup(self.http.update_log_settings, {"log_verbose_level": 0})
        self.assertEqual(self.http.update_log_settings({"log_verbose_level": 1})["log_verbose_level"], 1)
        said = self.grpc.get_log_settings(as_json=True)["settings"]
        self.assertEqual(int(said["log_verbose_level"]["uint32_param"]), 1)
        self.assertTrue(self.http.get_log_settings()["log_error"])

    def test_tracing(self):
        said = self.http.get_trace_settings()
        self.assertIsInstance(said["trace_level"], list)
        self.assertEqual(self.grpc.get_trace_settings(as_json=True)["settings"]["trace_level"]["value"],
                         said["trace_level"])
