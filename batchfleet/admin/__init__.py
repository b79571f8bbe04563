"""Changes to a running fleet: cancel, drain, forget, dead letters."""
