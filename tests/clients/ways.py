"""Every stock client and transport behind one question: these arrays in, those arrays out.

A way is a context manager around one client; `infer` takes inputs as [(name, datatype, array)] and returns the
outputs by name. Errors are the client's own, so that tests see what its users see.
"""
import asyncio
import atexit
import concurrent.futures
import functools
import logging
import multiprocessing

import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio

import kserve_ask

NAMES = ["http", "http.aio", "grpc", "grpc unix", "grpc.aio", "grpc.aio unix", "kserve", "kserve unix",
         "kserve grpc unix"]


def tensors(package, inputs, **keywords):
    """Inputs in the form of one of Triton's packages."""
    made = []
    for name, datatype, array in inputs:
        tensor = package.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, **keywords)
        made.append(tensor)
    return made


def arrays(result, names):
    """The outputs of one of Triton's results."""
    return {name: result.as_numpy(name) for name in names}


def named(response):
    """The names of a result's outputs, whichever package it is from."""
    outputs = response["outputs"] if isinstance(response, dict) else response.outputs
    return [output["name"] if isinstance(output, dict) else output.name for output in outputs]


class Sync:
    """tritonclient's blocking clients."""

    def __init__(self, package, address):
        self.package, self.client = package, package.InferenceServerClient(address)

    def infer(self, model, inputs, **keywords):
        result = self.client.infer(model, tensors(self.package, inputs), **keywords)
        return arrays(result, named(result.get_response()))

    def close(self):
        self.client.close()


class Async:
    """tritonclient's asyncio clients, on an event loop of their own."""

    def __init__(self, package, address):
        self.package, self.runner = package, asyncio.Runner()

        async def connect():
            return package.InferenceServerClient(address)
        self.client = self.runner.run(connect())

    def infer(self, model, inputs, **keywords):
        result = self.runner.run(self.client.infer(model, tensors(self.package, inputs), **keywords))
        return arrays(result, named(result.get_response()))

    def close(self):
        self.runner.run(self.client.close())
        self.runner.close()


@functools.cache
def apart():
    """A process that has KServe's package; one for the whole file, since importing it takes a second."""
    # Its clients log every refusal with a traceback, and refusals are what some tests ask for.
    process = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"),
                                                     initializer=logging.disable)
    atexit.register(process.shutdown)
    return process


class KServe:
    """KServe's clients, in a process of their own: see `kserve_ask`."""

    def __init__(self, kind, address):
        self.kind, self.address = kind, address

    def ask(self, function, *arguments):
        return apart().submit(function, self.kind, self.address, *arguments).result()

    def infer(self, model, inputs, **keywords):
        return self.ask(kserve_ask.infer, model, inputs, keywords)

    def close(self):
        """Each question had a client of its own."""


def open_way(name, daemon):
    """A client of this daemon; close it."""
    made = {
        "http": lambda: Sync(triton_http, daemon.tcp),
        "http.aio": lambda: Async(triton_http_aio, daemon.tcp),
        "grpc": lambda: Sync(triton_grpc, daemon.tcp),
        "grpc unix": lambda: Sync(triton_grpc, daemon.uds),
        "grpc.aio": lambda: Async(triton_grpc_aio, daemon.tcp),
        "grpc.aio unix": lambda: Async(triton_grpc_aio, daemon.uds),
        "kserve": lambda: KServe("rest", daemon.tcp),
        "kserve unix": lambda: KServe("rest", daemon.uds),
        "kserve grpc unix": lambda: KServe("grpc", daemon.uds),
    }
    return made[name]()
