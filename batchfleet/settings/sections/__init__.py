"""The sections of the settings, one file each: what can be set, its type, bounds, default and unit."""
