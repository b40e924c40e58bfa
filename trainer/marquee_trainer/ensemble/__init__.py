"""Learns to blend the models' scores: one blend for ranking, one for predicted stars.

Blends are learned on validation ratings. May import `models`, `metrics` and `data`. Start with
`blends.py`; `weight_search.py` maximises NDCG, and `candidate_lists.py` collects the scores.
"""
