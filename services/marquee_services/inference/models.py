"""The models that the inference service serves."""

from __future__ import annotations

from marquee_services.inference.saved_model import SavedModelScorer
from marquee_services.scoring.scorer import LoadScorer

# By name on the wire, what reads the model's artifacts.
INFERENCE_SCORERS: dict[str, LoadScorer] = dict.fromkeys(
    ("mf", "deep_mf", "residual_mf", "autorec", "user_autorec"), SavedModelScorer.load
)
