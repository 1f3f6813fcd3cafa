"""The order of calls of perf_analyzer, which decides by their answers whether and how it measures.

Replayed rather than run: the program needs a newer C library than many systems have.
"""
import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

import cases
import ways

WINDOWS, REQUESTS = 3, 8


class PerfAnalyzer(cases.Case):
    def shapes(self, metadata, config):
        """What it would send: one row where the configuration batches, the configuration's dims behind it."""
        rows = [1] if int(config["max_batch_size"]) > 0 else []
        given = {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]}
        return [(tensor["name"], given[tensor["name"]], rows + [int(size) for size in tensor["dims"]])
                for tensor in config["input"]]

    def measure(self, infer, statistics, shapes):
        """Windows of requests; each must show in the counts, or it stops with "failed to find the model version"."""
        noise = np.random.default_rng(len(shapes))
        last = statistics()
        for _ in range(WINDOWS):
            for _ in range(REQUESTS):
                infer([(name, kind, noise.random(shape, np.float32)) for name, kind, shape in shapes])
            now = statistics()
            self.assertEqual((now["name"], now["version"]), ("double", "1"))
            for path in (("inference_count",), ("execution_count",), ("inference_stats", "success", "count")):
                was, grown = last, now
                for key in path:
                    was, grown = was.get(key, {}), grown[key]
                self.assertEqual(int(grown) - int(was or 0), REQUESTS, path)
            for stage in ("queue", "compute_input", "compute_infer", "compute_output"):
                self.assertIn(stage, now["inference_stats"])
            last = now

    def test_over_grpc(self):
        asked = {"triton_enable_empty_final_response": True}
        with triton_grpc.InferenceServerClient(self.daemon.uds) as client:
            metadata = client.get_model_metadata("double", as_json=True)
            config = client.get_model_config("double", as_json=True)["config"]
            self.assertTrue(client.get_server_metadata(as_json=True)["extensions"])

            def statistics():
                return client.get_inference_statistics("double", as_json=True)["model_stats"][0]

            def infer(inputs):
                # tritonclient refuses to send the reserved name itself.
                request = triton_grpc.service_pb2.ModelInferRequest(model_name="double")
                for name, value in asked.items():
                    request.parameters[name].bool_param = value
                for name, kind, array in inputs:
                    request.inputs.add(name=name, datatype=kind, shape=array.shape)
                    request.raw_input_contents.append(array.tobytes())
                self.assertTrue(client._client_stub.ModelInfer(request).raw_output_contents)
            self.measure(infer, statistics, self.shapes(metadata, config))

    def test_over_http(self):
        with triton_http.InferenceServerClient(self.daemon.tcp) as client:
            metadata, config = client.get_model_metadata("double"), client.get_model_config("double")
            self.assertTrue(client.get_server_metadata()["extensions"])
            self.measure(lambda inputs: client.infer("double", ways.tensors(triton_http, inputs)),
                         lambda: client.get_inference_statistics("double")["model_stats"][0],
                         self.shapes(metadata, config))
