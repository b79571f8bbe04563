"""Files, streams and tables -> questions, in constant memory, each checked or named as wrong."""
