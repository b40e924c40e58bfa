"""Releases: the manifest, the store that publishes and promotes them, and the files inside.

A release becomes visible when `ReleaseStore.publish` in `store.py` has written its manifest.
`contents.py` reads and writes the files of a release, and `ensemble.py` its ensemble weights. May
import the rest of `marquee_core`. Start with `manifest.py`.
"""
