"""An engine that is a server with OpenAI's API."""
