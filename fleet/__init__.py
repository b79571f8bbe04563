"""The former name of `batchfleet`, for scripts that start `python -m fleet`. It goes with the next release."""
