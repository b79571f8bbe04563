"""Images named in chat messages: fetched within limits, and inserted in place of their names."""
