"""`batchfleet bench`: measures this fleet on this machine. Figures are for comparing with others of the same run; docs/performance.md has some."""
