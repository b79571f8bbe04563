"""Images that chat messages name: found, fetched within limits, and put in the place of their names."""
