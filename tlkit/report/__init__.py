"""What a run hands on: one page that answers whether a model is good enough, and a model card."""

from tlkit.report.card import Origin, front_matter, model_card
from tlkit.report.page import page
from tlkit.report.report import Chart, Mistake, Report, Score, charts_of
from tlkit.report.verdict import Verdict, verdict

__all__ = [
    "Chart", "Mistake", "Origin", "Report", "Score", "Verdict", "charts_of", "front_matter", "model_card", "page",
    "verdict",
]  # fmt: skip
