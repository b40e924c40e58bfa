"""Candidate generation: finds the items of a catalogue that a model scores highest.

`exact.py` scores all items block by block, `ann.py` searches approximate nearest neighbours with
Faiss, and `top.py` selects the highest scores. The package may import the rest of `marquee_core`
except `release`; only `ann.py` imports Faiss. Start with `exact.py`.
"""
