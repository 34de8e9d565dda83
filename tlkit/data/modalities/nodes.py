"""Nodes of a graph: a network sees the whole graph at once, so there is no single example to draw or to send."""

from __future__ import annotations

from tlkit.data.modalities.modality import Modality

NODES = Modality(name="nodes", singular="node", input="features")
