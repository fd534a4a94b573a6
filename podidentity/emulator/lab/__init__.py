"""A small Azure with nodes and pods, made of Linux namespaces: nothing of it outlives the process."""
