"""`batchfleet score`: what answers say, compared with the known answers.

Extraction is pure; docs/scoring.md has its rules with examples.
"""
