import pytest
from prometheus_client import CollectorRegistry, Gauge

from podidentity.emulator.inprocess import InProcess
from podidentity.telemetry.endpoints import Endpoints


@pytest.fixture
def get():
    registry = CollectorRegistry()
    Gauge("some_metric", "Help.", registry=registry).set(3)

    async def get(path, *, problem="", active=True, method="GET"):
        app = InProcess(Endpoints(registry=registry, ready=lambda: problem, active=lambda: active))
        async with app.call(method, path) as answer:
            return answer.status, answer.headers["content-type"], (await answer.read()).decode()

    return get


async def test_healthz_has_the_words_of_upstream(get):
    assert await get("/healthz") == (200, "text/plain; charset=utf-8", "Active")
    assert (await get("/healthz", active=False))[::2] == (200, "Not Active")


async def test_readiness_says_what_is_missing(get):
    assert (await get("/readyz"))[::2] == (200, "ok")
    assert (await get("/readyz", problem="waiting for pods"))[::2] == (503, "waiting for pods")


async def test_liveness_does_not_depend_on_readiness(get):
    assert (await get("/livez", problem="waiting", active=False))[::2] == (200, "ok")


async def test_metrics_are_in_the_format_of_prometheus(get):
    status, content, body = await get("/metrics")
    assert (status, "some_metric 3.0" in body) == (200, True)
    assert content.startswith("text/plain; version=")


@pytest.mark.parametrize("path", ["/", "/metricsx", "/healthz/", "//metrics", "/%00"])
async def test_other_paths_are_not_found_and_the_answer_names_those_that_are(get, path):
    status, _, body = await get(path)
    assert status == 404
    assert "/healthz" in body
