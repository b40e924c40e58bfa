"""Releases: the manifest, the files of a release, and the store that publishes and promotes it.

`publish.py` makes a release visible in the store, and `pointer.py` puts it in production, where
servers see it. `contents.py` reads and writes the files of a release, and `ensemble.py` its
ensemble weights. The package may import the rest of `marquee_core`, except `feedback` and
`experiments`. Start with `manifest.py`.
"""
