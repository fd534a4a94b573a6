"""Azure identities for Kubernetes pods, without secrets in the pods."""

__version__ = "0.1.0"
