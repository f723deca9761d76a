"""Measures the gateway. `python -m benchmarks` runs every scenario; figures are ratios within one run."""
