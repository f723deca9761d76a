"""Measures the gateway, as processes of its own, beside others: `python -m benchmarks`. Linux only.

`scenarios` has what is claimed and measured; `candidates` has what they share, `scenario` what they find. Load is made
by `load` in a process of its own (`generator` starts it), against the echo backends. `record`, `report`, `plots` and
`compare` are about what was found.
"""
