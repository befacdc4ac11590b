"""`python -m bcd.cli` is the command `bcd`."""

from bcd.cli.entry import main

main()
