"""`python -m bcd.cli` is the command `bcd`."""

from bcd.cli.main import main

main()
