"""One page of a suite that opens from a file, without a network: what was asked, what came out, and where from."""
