"""Deterministic simulation: the whole runtime in one thread and in virtual time, with seeded clients and faults.

`python -m tests.simulation --seed N` replays a seed; a seed is one world, one schedule, and one trace.
"""
