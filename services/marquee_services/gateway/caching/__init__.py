"""Cached answers, cached lists, and the page tokens that refer to them.

Page tokens are checked in `page_token.py`. May import `ranking` and `releases`. Start with
`answer_cache.py`, which holds first pages; `list_cache.py` holds the scores for further pages.
"""
