"""Features: the outputs of a frozen network, which stand in for its inputs while the rest of it is trained."""

from __future__ import annotations

from tlkit.data.modalities.modality import Modality

FEATURES = Modality(name="features", singular="feature")
