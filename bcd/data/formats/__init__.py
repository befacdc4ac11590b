"""One label format a file."""
