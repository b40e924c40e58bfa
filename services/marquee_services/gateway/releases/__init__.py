"""The releases that the gateway holds, and which of them it answers with.

Imports `marquee_core` and `backends`. Start with `serving.py`.
"""
