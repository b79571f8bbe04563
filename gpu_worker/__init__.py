"""Intake, leases, engines, GPU slices."""
