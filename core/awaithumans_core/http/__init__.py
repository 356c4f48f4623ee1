"""HTTP clients, and what they take from settings and environment: addresses, proxies, certificates."""
