"""What the leading batcher does besides batching.

Reaping the dead, expiring the unwanted, repairing what is damaged.
"""
