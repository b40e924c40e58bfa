"""The commands of the servers: `marquee serve`, `releases`, `experiments` and `batch --store`.

`pyproject.toml` registers them as entry points. The modules are cheap to import; each command
imports what it needs when it runs. This is the top layer: it may import every other package of the
services. Start with `serve.py`.
"""
