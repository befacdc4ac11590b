"""`params/` as typed values; nothing else reads that folder, but for `published/*.csv`."""
