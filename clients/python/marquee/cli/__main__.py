"""Runs the `marquee` command line as `python -m marquee.cli`."""

from marquee.cli import main

main()
