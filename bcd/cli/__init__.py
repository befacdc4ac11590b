"""The commands of `bcd`, one function each."""
