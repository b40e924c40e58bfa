"""Calls to the CF and inference services: replicas, their health, and what fails.

Imports `server` and the generated code. Start with `backend.py`.
"""
