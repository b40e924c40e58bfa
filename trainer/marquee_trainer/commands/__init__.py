"""The commands `marquee train`, `evaluate`, `tune`, `data check` and `demo`, and their settings.

`cli.py` defines the commands and is light to import; each command's module does the work. This is
the top layer: it may import every other package of the trainer. Start with `cli.py`.
"""
