"""ARM resource IDs: written in the usual spelling, compared without regard to case."""


def key(resource_id: str) -> str:
    """Return the form of a resource ID that equal IDs share: ARM compares every segment case-insensitively."""
    return resource_id.strip().rstrip("/").lower()


def user_identity_id(subscription: str, group: str, name: str) -> str:
    """Return the ID of a user-assigned identity."""
    return _resource_id(subscription, group, "Microsoft.ManagedIdentity/userAssignedIdentities", name)


def virtual_machine_id(subscription: str, group: str, name: str) -> str:
    """Return the ID of a virtual machine."""
    return _resource_id(subscription, group, "Microsoft.Compute/virtualMachines", name)


def scale_set_id(subscription: str, group: str, name: str) -> str:
    """Return the ID of a virtual machine scale set."""
    return _resource_id(subscription, group, "Microsoft.Compute/virtualMachineScaleSets", name)


def group_of(resource_id: str) -> str:
    """Return the key of the resource group that holds a resource: `/subscriptions/s/resourcegroups/g`."""
    return "/".join(key(resource_id).split("/")[:5])


def owner_of(resource_id: str) -> str:
    """Return the key of the resource that owns the identities of a machine: an instance has its scale set's."""
    parent, separator, _instance = key(resource_id).rpartition("/virtualmachines/")
    return parent if separator and "/virtualmachinescalesets/" in parent else key(resource_id)


def _resource_id(subscription: str, group: str, type_: str, name: str) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{type_}/{name}"
