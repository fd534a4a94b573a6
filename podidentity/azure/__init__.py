"""Azure: clouds and endpoints, identities of VMs and scale sets, Entra tokens, IMDS. It knows no Kubernetes."""
