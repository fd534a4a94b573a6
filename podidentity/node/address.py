"""The node's own address, as its default route has it."""

import socket
from ipaddress import IPv4Address

from podidentity.api.errors import ConfigurationError

# Any address beyond the default route serves: connecting a UDP socket asks the routing table and sends nothing.
# This one is set aside for documentation (RFC 5737).
_FAR_AWAY = ("192.0.2.1", 9)


def node_address() -> IPv4Address:
    """Return the source address of the default route; needs no network. Raises `ConfigurationError` without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_FAR_AWAY)
        except OSError as error:
            raise ConfigurationError(
                f"the node has no IPv4 default route ({error.strerror}), so its address has to be given:"
                " --nmi-listen-address"
            ) from error
        return IPv4Address(probe.getsockname()[0])
