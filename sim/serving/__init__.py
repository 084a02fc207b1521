"""The simulated engine: sequences, ranks, replicas, routers. Sees no GPU and no model, only prices and a KV layout."""
