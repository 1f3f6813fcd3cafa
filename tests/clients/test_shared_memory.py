"""Tensors in shared memory of the client's, through tritonclient's own helpers."""
import contextlib
import itertools
import os

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import tritonclient.utils.shared_memory as shared_memory
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

import cases

X = np.arange(8, dtype=np.float32).reshape(2, 4)
ROOM = 4096
numbers = itertools.count()


class SharedMemory(cases.Case):
    @contextlib.contextmanager
    def protocols(self, package):
        """A client of one protocol."""
        address = self.daemon.tcp if package is triton_http else self.daemon.uds
        with self.subTest(protocol=package.__name__), package.InferenceServerClient(address) as client:
            yield client

    @contextlib.contextmanager
    def region(self, client, size=ROOM):
        """A region that client and daemon know: its name and the client's handle."""
        name = f"graftd-test-{os.getpid()}-{next(numbers)}"
        handle = shared_memory.create_shared_memory_region(name, f"/{name}", size)
        try:
            client.register_system_shared_memory(name, f"/{name}", size)
            yield name, handle
        finally:
            client.unregister_system_shared_memory(name)
            shared_memory.destroy_shared_memory_region(handle)

    @staticmethod
    def status(client):
        """Key, offset and size of each region, by name."""
        said = client.get_system_shared_memory_status()
        regions = said if isinstance(said, list) else [
            {"name": region.name, "key": region.key, "offset": region.offset, "byte_size": region.byte_size}
            for region in said.regions.values()]
        return {region["name"]: (region["key"], int(region["offset"]), int(region["byte_size"])) for region in regions}

    def test_rows_in_and_out(self):
        for package in (triton_http, triton_grpc):
            with self.protocols(package) as client, self.region(client) as (source, filled):
                with self.region(client) as (sink, read):
                    for offset in (0, 256):
                        rows = X + offset
                        shared_memory.set_shared_memory_region(filled, [rows], offset=offset)
                        x = package.InferInput("x", list(rows.shape), "FP32")
                        x.set_shared_memory(source, rows.nbytes, offset=offset)
                        y = package.InferRequestedOutput("y")
                        y.set_shared_memory(sink, rows.nbytes, offset=offset)
                        client.infer("double", [x], outputs=[y])
                        got = shared_memory.get_contents_as_numpy(read, np.float32, rows.shape, offset=offset)
                        np.testing.assert_array_equal(got, rows + rows)

    def test_strings_in(self):
        texts = np.array([[b"", b"in shared memory"]], object)
        for package in (triton_http, triton_grpc):
            with self.protocols(package) as client, self.region(client) as (source, filled):
                packed = serialize_byte_tensor(texts)
                shared_memory.set_shared_memory_region(filled, [packed])
                given = package.InferInput("in", list(texts.shape), "BYTES")
                given.set_shared_memory(source, len(packed.item()))
                self.assertEqual(client.infer("words", [given]).as_numpy("out").tolist(), texts.tolist())

    def test_the_status(self):
        for package in (triton_http, triton_grpc):
            with self.protocols(package) as client:
                with self.region(client) as (name, _), self.region(client) as (other, _):
                    self.assertEqual(self.status(client)[name], (f"/{name}", 0, ROOM))
                    self.assertIn(other, self.status(client))
                self.assertNotIn(name, self.status(client))

    def test_what_cannot_be_is_refused(self):
        for package in (triton_http, triton_grpc):
            with self.protocols(package) as client, self.region(client) as (name, _):
                with self.assertRaisesRegex(InferenceServerException, name):
                    client.register_system_shared_memory(name, f"/{name}", ROOM)
                with self.assertRaisesRegex(InferenceServerException, "no-such-key"):
                    client.register_system_shared_memory("absent", "/no-such-key", ROOM)
                with self.assertRaisesRegex(InferenceServerException, "nothing-here"):
                    self.infer_from(package, client, "nothing-here", X.nbytes)
                with self.assertRaisesRegex(InferenceServerException, name):
                    self.infer_from(package, client, name, X.nbytes, offset=ROOM)

    @staticmethod
    def infer_from(package, client, region, size, offset=0):
        x = package.InferInput("x", list(X.shape), "FP32")
        x.set_shared_memory(region, size, offset=offset)
        return client.infer("double", [x])
