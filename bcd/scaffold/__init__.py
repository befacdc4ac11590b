"""From a folder of own images to a dataset's entry and a suite: look, describe, choose, write (`bcd new`)."""
