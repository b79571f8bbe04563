"""Measures this fleet on this machine: `python -m benchmarks NAME`.

Figures are for comparing with others of the same run; docs/design/performance.md has some.
"""
