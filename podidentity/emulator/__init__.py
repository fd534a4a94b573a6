"""Local stand-ins for the demo and the tests: Kubernetes API, ARM, Entra, IMDS, and pods as network namespaces."""
