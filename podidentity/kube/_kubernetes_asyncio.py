"""kubernetes-asyncio without its 860 model modules.

We take its configuration, its authentication and its HTTP transport. Importing them the ordinary way costs 34 MiB
in every node agent, because the package's `__init__` imports a class for each kind of the API. So `Configuration`
and the REST client are loaded under empty parent packages (4 MiB). `tests/kube/test_kubernetes_asyncio.py` fails
when a release of the package moves what is used here.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


def _empty_package(name: str) -> ModuleType:
    """Register a package that has the real one's folder, so that its modules are found, and runs none of its code."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is not installed"
    module = ModuleType(name)
    module.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[name] = module
    return module


def _load() -> tuple[Any, Any, Any]:
    if "kubernetes_asyncio" not in sys.modules:  # somebody who needs the models has paid for them already
        _empty_package("kubernetes_asyncio")
        client = _empty_package("kubernetes_asyncio.client")
        client.Configuration = importlib.import_module(  # type: ignore[attr-defined]
            "kubernetes_asyncio.client.configuration"
        ).Configuration
        client.ApiClient = None  # type: ignore[attr-defined] # the loaders only name it, in annotations
    return (
        importlib.import_module("kubernetes_asyncio.client").Configuration,
        importlib.import_module("kubernetes_asyncio.client.rest").RESTClientObject,
        importlib.import_module("kubernetes_asyncio.config"),
    )


Configuration, RestClient, config = _load()


def remove_temporary_files() -> None:
    """Remove the files that the library writes for certificates and keys inside a kubeconfig.

    It would do so at the end of the process, which a kill prevents: then a key stays in /tmp. Nothing reads the files
    once the TLS context is made.
    """
    config.kube_config._cleanup_temp_files()  # noqa: SLF001 - it has no other name
