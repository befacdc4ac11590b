"""`python -m bcd` is the command `bcd`."""

from bcd.cli import main

main()
