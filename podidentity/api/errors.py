"""The errors of the project, as a tree.

    PodIdentityError            anything this project raises on purpose; str() is one line for a person
    ├── ConfigurationError      a flag, file or environment variable is wrong: the program cannot start
    ├── InvalidValue            a value inside an object cannot be used; becomes a reason in words
    ├── kube.errors.*           the Kubernetes API
    ├── azure.errors.*          ARM, Entra, IMDS
    └── node.nftables.*         netfilter

Errors of the libraries never cross a module of ours that calls them: they are wrapped where they occur.
"""


class PodIdentityError(Exception):
    """Anything this project raises on purpose. `str()` is one line, safe to show: no secret, no token."""


class ConfigurationError(PodIdentityError):
    """A flag, a file or an environment variable is wrong; says which, and what to do."""


class InvalidValue(PodIdentityError, ValueError):
    """A value in an object of the cluster cannot be used; the message completes "because ..."."""
