"""The commands: `marquee train`, `tune`, `evaluate` and `demo`, with their settings.

The top layer: it may import every other package of the trainer. Start with `cli.py`.
"""
