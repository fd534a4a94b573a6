"""What we take of kubernetes-asyncio, held fast: it is loaded in a way that its authors did not foresee."""

import json
import subprocess
import sys

import pytest

_LOADED_BY_US = """
import json, sys
before = set(sys.modules)
from podidentity.kube import transport
rss = int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
print(json.dumps({"modules": [n for n in sys.modules if n.startswith("kubernetes_asyncio")], "rss": rss}))
"""


@pytest.fixture(scope="module")
def loaded():
    """What a fresh process has after importing our transport; `rss` in MiB."""
    done = subprocess.run([sys.executable, "-c", _LOADED_BY_US], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_models_of_all_kinds_are_not_loaded(loaded):
    assert "kubernetes_asyncio.config.kube_config" in loaded["modules"]
    assert [name for name in loaded["modules"] if ".models" in name or ".api." in name] == []
    assert len(loaded["modules"]) < 25


def test_the_transport_costs_less_memory_than_the_library_itself(loaded):
    # 46 MiB when this was written, aiohttp and msgspec included; 80 with the models.
    assert loaded["rss"] < 60


def test_what_we_use_of_it_is_where_we_expect_it():
    check = """
import inspect
from podidentity.kube._kubernetes_asyncio import Configuration, RestClient, config
made = Configuration()
used = ("host", "api_key", "ssl_ca_cert", "cert_file", "proxy", "tls_server_name", "disable_strict_ssl_verification")
assert [name for name in used if not hasattr(made, name)] == []
parameters = lambda function: set(inspect.signature(function).parameters)
assert "maxsize" in parameters(RestClient)
assert {"config_file", "client_configuration", "persist_config"} <= parameters(config.load_kube_config)
assert {"client_configuration", "try_refresh_token"} <= parameters(config.load_incluster_config)
"""
    subprocess.run([sys.executable, "-c", check], check=True)


def test_somebody_who_loaded_the_whole_library_keeps_it():
    check = """
from kubernetes_asyncio.client.rest import RESTClientObject
from podidentity.kube._kubernetes_asyncio import RestClient
import kubernetes_asyncio.client
assert RestClient is RESTClientObject
assert kubernetes_asyncio.client.CoreV1Api
"""
    subprocess.run([sys.executable, "-c", check], check=True)
