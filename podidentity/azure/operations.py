"""Following ARM's long-running operations more promptly than the SDK does, and without sending our token elsewhere.

The SDK obeys `Retry-After: 10` whatever polling interval it is given, and reads the resource once more at the end. A
pod waits for every second of that. ARM's read limits allow far more (docs/adr/0004-polling.md).
"""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import structlog
from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.core.polling.base_polling import BadStatus, LocationPolling, StatusCheckPolling
from azure.mgmt.core.polling.arm_polling import AzureAsyncOperationPolling, BodyContentPolling
from azure.mgmt.core.polling.async_arm_polling import AsyncARMPolling

from podidentity.azure.errors import ArmError

_log = structlog.get_logger(__name__)
_SHORTEST = 0.25
"""Seconds between two polls at first: adds an eighth of a second to an operation of some seconds, on average."""
_SHARE = 0.05
"""Of the time that the operation has taken: a minute's operation is polled each 3 s, about 70 times in all."""
_LONGEST = 5.0
"""Seconds: nobody feels more after a wait of minutes."""
_RETRIED = {408, 429, 500, 502, 503, 504}
"""Answers to a poll that say nothing about the operation."""


class _NoFinalRead(AzureAsyncOperationPolling[Any, Any]):
    """The operation's own status says it all."""

    def get_final_get_url(self, pipeline_response: Any) -> None:  # noqa: ARG002
        return None


class PromptPolling(AsyncARMPolling):
    """The SDK's polling with our own pace, tolerance of passing faults, and a check of where the poll goes."""

    def __init__(self, resource_manager: str) -> None:
        algorithms = [_NoFinalRead(), LocationPolling(), BodyContentPolling(), StatusCheckPolling()]
        super().__init__(lro_algorithms=algorithms)
        self._host = urlsplit(resource_manager).netloc.lower()
        self._started = asyncio.get_running_loop().time()
        self._wish = 0.0

    def _extract_delay(self) -> float:
        elapsed = asyncio.get_running_loop().time() - self._started
        wish, self._wish = self._wish, 0.0
        return max(wish, min(_LONGEST, max(_SHORTEST, elapsed * _SHARE)))

    async def request_status(self, status_link: str) -> Any:
        """Poll once; the URL came in a header, and the token goes with the request."""
        link = urlsplit(status_link.lower())
        if link.scheme != "https" or not f".{link.netloc}".endswith(f".{self._host}"):
            place = f"{link.scheme}://{link.netloc}"
            raise ArmError(0, "UnexpectedHost", f"an operation is to be followed at {place}, not {self._host}")
        return await super().request_status(status_link)

    async def update_status(self) -> None:
        """Poll once, and go on after an answer that says nothing about the operation."""
        try:
            await super().update_status()
        except (ServiceRequestError, ServiceResponseError) as error:
            _log.warning("arm_poll_failed", error=str(error))
        except HttpResponseError as error:  # of the policies, for a body that is no JSON
            if not self._passes(error.response):
                raise
        except BadStatus:
            if not self._passes(self._pipeline_response.http_response):
                raise

    def _passes(self, answer: Any) -> bool:
        """Whether a refused poll says nothing about the operation; remember how long ARM wants us to wait."""
        if answer is None or answer.status_code not in _RETRIED:
            return False
        self._wish = retry_after(answer) or 0.0
        _log.warning("arm_poll_failed", status=answer.status_code, retry_after=self._wish)
        return True


def retry_after(answer: Any) -> float | None:
    """Return the seconds that the service asked us to wait, if it did."""
    value = getattr(answer, "headers", {}).get("Retry-After", "")
    return float(value) if value.isdigit() else None
