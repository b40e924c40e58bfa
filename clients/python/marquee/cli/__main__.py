"""`python -m marquee.cli` is `marquee`."""

from marquee.cli import main

main()
