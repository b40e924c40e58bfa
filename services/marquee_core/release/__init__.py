"""Releases: the manifest, the store that publishes and promotes them, and the files inside.

A release becomes visible in `store.py` (`ReleaseStore.publish`); `contents.py` reads and writes
its files, `ensemble.py` the blends. Imports `marquee_core` alone. Start with `manifest.py`.
"""
