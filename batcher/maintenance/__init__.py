"""What the leading batcher does besides batching: reaping the dead, expiring the unwanted, repairing what is damaged."""
