"""The releases that the gateway has loaded, and the one that it serves.

`serving.py` decides when a promoted release becomes the one served. May import `marquee_core` and
`backends`. Start with `serving.py`.
"""
