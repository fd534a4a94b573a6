"""Whom we trust over TLS, the same for every library: the system's CAs and whatever the environment adds.

OpenSSL obeys `SSL_CERT_FILE`, requests (under MSAL) obeys `REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE`, aiohttp only the
first. A custom CA must work for all of them, so one context is made from all three.
"""

import os
import ssl
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from podidentity.api.errors import ConfigurationError

_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def tls_context() -> ssl.SSLContext:
    """Return a client context with all CAs that the environment names."""
    context = ssl.create_default_context()
    _add_system(context)
    for variable in _VARIABLES:
        path = os.environ.get(variable, "")
        if not path:
            continue
        try:
            if Path(path).is_dir():
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"{variable}={path} holds no usable CA certificates: {error}") from error
    return context


def _add_system(context: ssl.SSLContext) -> None:
    """Add the system's own CAs again: with SSL_CERT_FILE or SSL_CERT_DIR set, OpenSSL leaves them out."""
    built_in = ssl.get_default_verify_paths()
    if Path(built_in.openssl_cafile).is_file():
        context.load_verify_locations(cafile=built_in.openssl_cafile)
    if Path(built_in.openssl_capath).is_dir():
        context.load_verify_locations(capath=built_in.openssl_capath)


class _Adapter(HTTPAdapter):
    def __init__(self, context: ssl.SSLContext, *, timeout: float) -> None:
        self._context = context
        self._timeout = timeout
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return super().proxy_manager_for(*args, ssl_context=self._context, **kwargs)

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = self._timeout  # requests has none by default, and MSAL gives none
        return super().send(request, *args, **kwargs)


def requests_session(*, timeout: float) -> requests.Session:
    """Return a session for MSAL, with the same trust, the environment's proxies, and a timeout in seconds."""
    session = requests.Session()
    session.mount("https://", _Adapter(tls_context(), timeout=timeout))
    return session
