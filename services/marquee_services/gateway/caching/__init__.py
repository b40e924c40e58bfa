"""Cached answers, cached lists, and the page tokens that name a list's next page.

Page tokens are checked in `page_token.py`. Imports `ranking` and `releases`. Start with
`answer_cache.py`.
"""
