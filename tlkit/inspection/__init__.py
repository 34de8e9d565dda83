"""What is in the data that would falsify a score: near copies across splits, and others of the kind."""

from tlkit.inspection.suspects import Neighbours, Suspicion, neighbours, outliers, suspicion, votes

__all__ = ["Neighbours", "Suspicion", "neighbours", "outliers", "suspicion", "votes"]
