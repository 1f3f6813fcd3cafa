"""Many requests down one gRPC stream, with tritonclient's blocking and asyncio clients."""
import asyncio
import queue

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio

import cases
import ways
from daemon import PATIENCE

REQUESTS = 50


def rows(number):
    return [("x", "FP32", np.full((1, 4), number, np.float32))]


class Stream(cases.Case):
    def answers_are_right(self, answers):
        """Every request has its answer, told apart by id."""
        self.assertEqual(sorted(int(answer.get_response().id) for answer in answers), list(range(REQUESTS)))
        for answer in answers:
            twice = np.full((1, 4), 2 * int(answer.get_response().id), np.float32)
            np.testing.assert_array_equal(answer.as_numpy("y"), twice)

    def test_blocking(self):
        for address in (self.daemon.tcp, self.daemon.uds):
            with self.subTest(address=address), triton_grpc.InferenceServerClient(address) as client:
                came = queue.Queue()
                client.start_stream(callback=lambda result, error: came.put((result, error)))
                for number in range(REQUESTS):
                    client.async_stream_infer("double", ways.tensors(triton_grpc, rows(number)),
                                              request_id=str(number))
                answers = []
                for _ in range(REQUESTS):
                    result, error = came.get(timeout=PATIENCE)
                    # After an error that ends the stream nothing more would come.
                    self.assertIsNone(error)
                    answers.append(result)
                client.stop_stream()
                self.answers_are_right(answers)

    def test_asyncio(self):
        async def ask():
            async def requests():
                for number in range(REQUESTS):
                    yield {"model_name": "double", "inputs": ways.tensors(triton_grpc_aio, rows(number)),
                           "request_id": str(number)}
            async with triton_grpc_aio.InferenceServerClient(self.daemon.uds) as client:
                return [answer async for answer in client.stream_infer(requests())]
        answers = asyncio.run(ask())
        self.assertEqual([error for _, error in answers if error], [])
        self.answers_are_right([result for result, _ in answers])

    def test_a_refusal_ends_only_its_request(self):
        with triton_grpc.InferenceServerClient(self.daemon.uds) as client:
            came = queue.Queue()
            client.start_stream(callback=lambda result, error: came.put((result, error)))
            for model in ("nobody", "double"):
                client.async_stream_infer(model, ways.tensors(triton_grpc, rows(1)), request_id=model)
            answers = [came.get(timeout=PATIENCE) for _ in range(2)]
            client.stop_stream()
        errors = [error for _, error in answers if error]
        self.assertEqual(len(errors), 1)
        self.assertRegex(errors[0].message(), "nobody")
        self.assertEqual([result.get_response().id for result, error in answers if not error], ["double"])

    def test_the_final_answer_is_marked_when_asked_for(self):
        with triton_grpc.InferenceServerClient(self.daemon.uds) as client:
            came = queue.Queue()
            client.start_stream(callback=lambda result, error: came.put((result, error)))
            client.async_stream_infer("double", ways.tensors(triton_grpc, rows(1)), enable_empty_final_response=True)
            result, error = came.get(timeout=PATIENCE)
            client.stop_stream()
        self.assertIsNone(error)
        self.assertTrue(result.get_response().parameters["triton_final_response"].bool_param)
        np.testing.assert_array_equal(result.as_numpy("y"), np.full((1, 4), 2, np.float32))
