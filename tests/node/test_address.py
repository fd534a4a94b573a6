from ipaddress import IPv4Address

import pytest

from podidentity.api.errors import ConfigurationError
from podidentity.emulator.lab import netns
from podidentity.emulator.lab.network import Lab
from podidentity.node.address import node_address

pytestmark = pytest.mark.netns


def test_it_is_the_address_that_the_default_route_leaves_from(isolated):
    def scenario():
        with Lab() as lab:
            lab.add_node("node-a", IPv4Address("10.240.0.4"))
            assert netns.run_in("node-a", node_address) == IPv4Address("10.240.0.4")

    isolated(scenario)


def test_without_a_default_route_it_asks_for_the_flag(isolated):
    def scenario():
        with pytest.raises(ConfigurationError, match="--nmi-listen-address"):
            node_address()

    isolated(scenario)
