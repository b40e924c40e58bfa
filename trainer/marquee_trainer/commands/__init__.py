"""The commands `marquee train`, `retrain`, `evaluate`, `tune`, `data check` and `demo`.

This is the top layer: it may import every other package of the trainer. Start with `cli.py`, which
defines the commands and is light to import. `settings.py` holds their options, and the module named
after a command does its work.
"""
