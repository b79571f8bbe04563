"""What the leading batcher does besides batching: reap, expire, repair."""
