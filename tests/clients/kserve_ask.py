"""KServe's Python client, for a process that has not imported Triton's: both register the same protobuf messages.

What is asked runs in a child process, so everything that goes in or out is plain data; that is also why KServe is
imported where it is used. `kind` is rest or grpc; an address is unix:PATH or HOST:PORT.
"""
import asyncio


class Refused(Exception):
    """An error as KServe's user sees it: its text, and a status of HTTP or gRPC."""

    def __init__(self, text, status):
        super().__init__(text, status)
        self.text, self.status = text, status


def _rest(address):
    import httpx
    from kserve import InferenceRESTClient
    from kserve.inference_client import RESTConfig
    if address.startswith("unix:"):
        transport, base = httpx.AsyncHTTPTransport(uds=address.removeprefix("unix:")), "http://localhost"
    else:
        transport, base = httpx.AsyncHTTPTransport(), f"http://{address}"
    return InferenceRESTClient(RESTConfig(transport=transport, protocol="v2")), base


def _grpc(address):
    from kserve import InferenceGRPCClient
    # A refusal is to be seen, not tried again.
    return InferenceGRPCClient(address, retries=0)


async def _with_client(kind, address, ask):
    import grpc
    import httpx
    try:
        if kind == "rest":
            client, base = _rest(address)
            try:
                return await ask(client, base)
            finally:
                await client.close()
        async with _grpc(address) as client:
            return await ask(client)
    except httpx.HTTPStatusError as error:
        raise Refused(str(error), error.response.status_code) from None
    except grpc.RpcError as error:
        raise Refused(error.details(), error.code().name) from None


def health(kind, address, model):
    """Whether the server is live, the server is ready, the model is ready."""
    async def ask(client, *base):
        return (await client.is_server_live(*base), await client.is_server_ready(*base),
                await client.is_model_ready(*base, model_name=model))
    return asyncio.run(_with_client(kind, address, ask))


def infer(kind, address, model, inputs, options):
    """One inference; options: binary (default: yes), both ways, and request_id."""
    from kserve import InferInput, InferRequest
    binary = options.get("binary", True)
    made = []
    for name, datatype, array in inputs:
        tensor = InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=binary)
        made.append(tensor)
    request = InferRequest(model, made, request_id=options.get("request_id"),
                           parameters={"binary_data_output": binary} if kind == "rest" else None)

    async def ask(client, *base):
        return await (client.infer(*base, request, model_name=model) if base else client.infer(request))
    response = asyncio.run(_with_client(kind, address, ask))
    if options.get("request_id") and response.id != options["request_id"]:
        raise AssertionError(f"the answer's id is {response.id!r}, not {options['request_id']!r}")
    return {output.name: _array(output) for output in response.outputs}


def _array(output):
    """An output as an array; KServe's REST client decodes strings, its gRPC client does not."""
    array = output.as_numpy()
    if output.datatype == "BYTES":
        for at, text in enumerate(array.flat):
            array.flat[at] = text.encode() if isinstance(text, str) else text
    return array
