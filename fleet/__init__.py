"""The `batchfleet` command: configuration, all-in-one run, status, verify."""
