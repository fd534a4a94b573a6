"""Where each kind lives in the API's paths."""

from dataclasses import dataclass

from podidentity.api.identities import GROUP, VERSION


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, as discovery names it."""

    group: str
    version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "") -> str:
        """Return the path of a collection (all namespaces when none is given) or of one object."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{scope}/{self.plural}" + (f"/{name}" if name else "")


PODS = Resource("", "v1", "pods")
NODES = Resource("", "v1", "nodes", namespaced=False)
CONFIG_MAPS = Resource("", "v1", "configmaps")
EVENTS = Resource("", "v1", "events")
IDENTITIES = Resource(GROUP, VERSION, "azureidentities")
BINDINGS = Resource(GROUP, VERSION, "azureidentitybindings")
ASSIGNED_IDENTITIES = Resource(GROUP, VERSION, "azureassignedidentities")
