"""Other queues, one file each, measured beside this fleet.

Each runs in an environment of its own, made from the lock that lies beside it. Nothing here may import the rest of the
project: it is not installed there. `environments.py` makes the environments; `driving.py` is what runs.
"""
