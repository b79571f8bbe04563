"""One run of a file, from reading it to the summary."""
