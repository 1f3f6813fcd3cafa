"""One inference of every real model (`make models`) through every client: all get the same numbers."""
import contextlib
import itertools
import unittest

import numpy as np
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

import ways
from daemon import ROOT, Daemon

REAL = ROOT / "models/real"
# What an axis of unknown size may want: one, a few, what convolutions divide by.
SIZES = (1, 4, 16, 32, 64, 256, 512, 1280)


def filled(shape, datatype):
    """An input that models of all kinds take: small numbers, plain words; a number alone is a sample rate."""
    if datatype == "BYTES":
        return np.full(shape, b"the quick brown fox", object)
    return np.full(shape, 1 if shape else 16000, triton_to_np_dtype(datatype))


def sized(shape, batch, lone, other):
    """A shape without unknown sizes: the first axis is the batch, unless another is the only unknown one."""
    unknown = [at for at, size in enumerate(shape) if size < 0]
    sizes = {at: lone if len(unknown) == 1 else other for at in unknown if at > 0} | {0: batch}
    return [sizes[at] if size < 0 else size for at, size in enumerate(shape)]


def guesses(metadata):
    """Inputs of growing size."""
    known = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs]
    for batch, other in itertools.product((1, 4), SIZES):
        for lone in sorted({batch, other}):
            yield [(name, kind, filled(sized(shape, batch, lone, other), kind)) for name, kind, shape in known]


@unittest.skipUnless((REAL / "models.json").exists(), "no models/real; type `make models`")
class Real(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Every client's request is to run, not to be answered with what the one before it left; and measuring batch
        # sizes would take most of the time.
        cls.daemon = Daemon(REAL, "--cache-bytes", "0", "--max-batch-rows", "1")
        cls.addClassCleanup(cls.daemon.stop)
        cls.daemon.ready()

    def first_accepted(self, client, model):
        """Inputs that the model takes, and its answer."""
        for inputs in guesses(client.get_model_metadata(model)):
            with contextlib.suppress(InferenceServerException):
                result = client.infer(model, ways.tensors(triton_grpc, inputs))
                return inputs, ways.arrays(result, ways.named(result.get_response()))
        self.fail(f"{model} takes none of the sizes {SIZES}")

    def test_every_model_through_every_client(self):
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(triton_grpc.InferenceServerClient(self.daemon.uds))
            clients = {name: stack.enter_context(contextlib.closing(ways.open_way(name, self.daemon)))
                       for name in ways.NAMES}
            for model in sorted(place.name for place in REAL.iterdir() if place.is_dir()):
                with self.subTest(model=model):
                    inputs, expected = self.first_accepted(client, model)
                    for name, way in clients.items():
                        with self.subTest(model=model, way=name):
                            answer = way.infer(model, inputs)
                            self.assertEqual(set(answer), set(expected))
                            for output, array in answer.items():
                                np.testing.assert_array_equal(array, expected[output], output)
