"""`batchfleet sweep`: the same questions under several settings, and how these compare."""
