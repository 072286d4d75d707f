"""The OpenAPI document: what it says is what is served."""

import asyncio

import pytest

from racer_jax.serving.gateway import inference_app
from racer_jax.serving.gateway._openapi import document
from racer_jax.serving.gateway._server import _server, bounded_protocol, listening


def test_the_document_names_every_path(served):
    paths = {route.path for route in inference_app(served.gateway).routes} - {"/openapi.json"}
    assert set(document()["paths"]) == paths
    assert served.ask("GET", "/openapi.json").json == document()


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
def test_schemathesis_finds_no_fault(served, upstreams):
    """Requests made from the document, valid and not: no error of the server, none undocumented."""
    schemathesis = pytest.importorskip("schemathesis")
    import threading

    from hypothesis import HealthCheck, Phase, given, settings

    listener = listening("127.0.0.1", 0)
    server = _server(inference_app(served.gateway), bounded_protocol(5, 200_000))
    loop = served.run.__self__
    task = asyncio.ensure_future(server.serve(sockets=[listener]), loop=loop)
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    failures, num = [], []

    def check():
        try:
            schema = schemathesis.openapi.from_dict(document())
            for result in schema.get_all_operations():
                operation = result.ok()

                @given(case=operation.as_strategy())
                @settings(
                    max_examples=25,
                    deadline=None,
                    database=None,
                    derandomize=True,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                def ask(case):
                    num.append(1)
                    response = case.call(base_url=base)
                    case.validate_response(
                        response, checks=[schemathesis.checks.not_a_server_error]
                    )

                ask()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=check)
    thread.start()

    async def wait():
        while thread.is_alive():
            await asyncio.sleep(0.01)

    served.run(wait())
    server.should_exit = True
    served.run(task)
    assert failures == []
    assert len(num) > 50
