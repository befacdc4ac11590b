"""Benchmark suite for knowledge distillation in dense prediction."""
