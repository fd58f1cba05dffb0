"""Benchmarks: quality on the embedded world, published protocols, and speed in ratios."""
