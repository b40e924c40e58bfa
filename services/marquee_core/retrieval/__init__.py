"""The best items of a catalogue: exactly in blocks, or by approximate nearest neighbours.

Imports `marquee_core` alone; faiss in `ann.py` only. Start with `exact.py`.
"""
