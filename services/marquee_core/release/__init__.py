"""Releases: the manifest, the files of a release, and the store that publishes and promotes it.

A release becomes visible in `publish.py`, and is put in production in `pointer.py`. `contents.py`
reads and writes the files of a release, and `ensemble.py` its ensemble weights. The package may
import the rest of `marquee_core`, except `feedback` and `experiments`. Start with `manifest.py`.
"""
