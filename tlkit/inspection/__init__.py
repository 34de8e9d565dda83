"""What is in the data that would falsify a score: near copies across splits, and others of the kind."""
