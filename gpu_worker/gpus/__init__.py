"""The GPUs of a host, and which of them are whose."""
