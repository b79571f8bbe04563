"""OpenAI's API in front of the queue, and a page to look at: `batchfleet gateway`.

`app` puts the rooms together: each is a module with a list `routes` and, if it has something to start and to stop, an
async context manager `lifespan(app)`. `gate` stands before all of them: keys and limits.
"""
