"""The node agent: it stands between the pods of one node and the metadata service (upstream: NMI)."""
