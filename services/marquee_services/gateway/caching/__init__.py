"""Caches answers and lists, and encodes the page tokens that refer to them.

Page tokens are checked in `page_token.py`. May import `ranking` and `releases`. Start with
`answer_cache.py`, which caches first pages; `list_cache.py` caches the scores for further pages.
"""
