"""Each model as it scores: the one scoring implementation.

A file per model; folding in a visitor happens here. Imports `marquee_core` alone; TensorFlow in
`saved_model.py` only. Start with `scorer.py`, then `ease.py` for a short example.
"""
