"""Who calls, what the caller may do, and who the server is: tokens, certificates and rates.

`access.py` checks each call against static tokens or JWTs and the rate of its caller.
`certificates.py` and `reloading.py` follow renewed files. May import `settings`. Start with
`access.py`.
"""
