"""Bringing a dataset to disk: mirrors, downloads, archives, manifests."""
