"""The releases that the gateway has loaded, and the one in service.

`serving.py` decides when a promoted release comes into service. May import `marquee_core`,
`server`, `scoring` and `backends`. Start with `serving.py`.
"""
