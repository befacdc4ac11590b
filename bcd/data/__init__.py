"""Datasets: fetching, manifests, label formats, augmentation and batches."""
