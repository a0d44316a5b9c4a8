"""The store: finished stages by identity, work in progress, leases, and what becomes of them."""
