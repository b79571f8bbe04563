"""Groups questions into batches, and hands them over."""
