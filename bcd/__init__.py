"""Benchmark suite for knowledge distillation in dense prediction."""

__version__ = "0.1.0"
