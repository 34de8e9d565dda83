"""What is in the data that would falsify a score: near copies across splits, wrong labels, and others of the kind."""

from tlkit.inspection.findings import Findings, Suspect
from tlkit.inspection.near_copies import NearCopy
from tlkit.inspection.page import page
from tlkit.inspection.steps import by_features, of_examples, of_splits, with_near_copies
from tlkit.inspection.survey import Seen, survey
from tlkit.inspection.suspects import Neighbours, Suspicion, neighbours, outliers, suspicion, votes
from tlkit.inspection.table import table
from tlkit.inspection.text import brief, report

__all__ = [
    "Findings", "NearCopy", "Neighbours", "Seen", "Suspect", "Suspicion", "brief", "by_features", "neighbours",
    "of_examples", "of_splits", "outliers", "page", "report", "survey", "suspicion", "table", "votes",
    "with_near_copies",
]  # fmt: skip
