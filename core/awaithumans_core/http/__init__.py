"""HTTP clients, and what they read from settings and environment: addresses, proxies, certificates."""
