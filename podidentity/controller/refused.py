"""Identities that Azure refuses on one target: each waits for its own time, and the others go on without it."""

import random
import re
from collections.abc import Callable, Collection, Mapping

from podidentity.azure.errors import ArmError
from podidentity.kube.backoff import Backoff, BackoffSettings

_CODES = {"LinkedAuthorizationFailed", "FailedIdentityOperation"}
"""Refusals that are about single identities, which the message quotes. Others are about the whole change."""
_NAME_ENDS = r"(?![\w.()-])"
_RETRY = BackoffSettings(first=15.0, longest=300.0, reset_after=1800.0)
"""A person has to grant a role or to create the identity, and expects it to work within minutes after that."""


def blamed(error: ArmError, added: Collection[str]) -> frozenset[str]:
    """Return those of the added resource IDs (lower case) that the refusal is about; empty when it does not say."""
    if error.code not in _CODES:
        return frozenset()
    message = error.message.lower()
    return frozenset(identity for identity in added if re.search(re.escape(identity) + _NAME_ENDS, message))


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
