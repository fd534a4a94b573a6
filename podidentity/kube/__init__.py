"""The Kubernetes API: client, informer cache with indexes, work queue. It knows no Azure and serves no HTTP."""
