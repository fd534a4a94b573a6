"""Identities that Azure refuses on one target: each waits for its own time, and the others go on without it."""

import random
import re
from collections.abc import Callable, Collection, Mapping

from podidentity.azure.errors import ArmError
from podidentity.kube.backoff import Backoff, BackoffSettings

_ABOUT_THE_MACHINE = {"authorizationfailed", "invalidauthenticationtoken", "scopelocked", "requestdisallowedbypolicy"}
_PASSING = {"internal", "throttl", "toomanyrequests", "retryable", "preempted", "cancel", "timeout", "conflict"}
"""Parts of codes, in lower case, of failures inside an operation that no identity has caused."""
_NAME_ENDS = r"(?![\w.()-])"
_RETRY = BackoffSettings(first=15.0, longest=300.0, reset_after=1800.0)
"""A person has to grant a role or to create the identity, and expects it to work within minutes after that."""


def concerns_identities(error: ArmError) -> bool:
    """Whether ARM refused because of some identity of the change, as far as its answer tells."""
    code = error.code.lower()
    if code in _ABOUT_THE_MACHINE:
        return False
    if error.status:
        return 400 <= error.status < 500 and error.status not in {401, 408, 409, 429}
    return bool(code) and not any(part in code for part in _PASSING)


def blamed(error: ArmError, changed: Collection[str]) -> frozenset[str]:
    """Return those of the changed resource IDs (lower case) that the refusal quotes; empty when it quotes none."""
    if not concerns_identities(error):
        return frozenset()
    message = error.message.lower()
    return frozenset(identity for identity in changed if re.search(re.escape(identity) + _NAME_ENDS, message))


class Refused:
    """The refused identities of one target, and until when (the clock's time) each is left out."""

    def __init__(self, clock: Callable[[], float], rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._backoffs: dict[str, Backoff] = {}
        self._until: dict[str, float] = {}

    @property
    def until(self) -> Mapping[str, float]:
        """The time of each identity."""
        return self._until

    def add(self, identity: str) -> float:
        """Leave an identity out from now on; return the seconds."""
        backoff = self._backoffs.setdefault(identity, Backoff(self._clock, self._rng, _RETRY))
        wait = backoff.step()
        self._until[identity] = self._clock() + wait
        return wait

    def keep(self, wanted: Collection[str]) -> None:
        """Forget what nobody wants any more, so that somebody who wants it again is served at once."""
        for identity in self._until.keys() - set(wanted):
            del self._until[identity], self._backoffs[identity]
