"""The label value of pixels that count nowhere: neither in a loss nor in a metric."""

IGNORE = 255
