"""A model behind HTTP, for `tlkit serve`: the app, the page, and the batches that requests are gathered into."""
