#!/bin/bash
# pycocotools 2.0.11 with numpy 2: the areas of more than 255 masks cannot be taken in one call.
#
# One would expect that mask.area takes as many run-length codes as one has, as mask.encode and mask.decode do.
# Seen (Python 3.11, pycocotools 2.0.11, numpy 2.4.6): 255 masks give 255 areas, 256 raise an OverflowError, while 256 masks are
# encoded, decoded and have their boxes taken. With numpy 1.26.4 the same wheel takes 256 of them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat > areas.py <<'PYTHON'
from importlib.metadata import version

import numpy as np
from pycocotools import mask

codes = mask.encode(np.asfortranarray(np.ones((4, 4, 256), np.uint8)))
assert len(mask.toBbox(codes)) == 256 and mask.decode(codes).shape == (4, 4, 256)


def outcome(count):
    try:
        return f"{len(mask.area(codes[:count]))} areas"
    except Exception as error:
        return type(error).__name__


print("pycocotools", version("pycocotools"), "numpy", version("numpy"), "255:", outcome(255), "256:", outcome(256))
PYTHON
for numpy in 2.4.6 1.26.4; do
    python3 -m venv "$work/$numpy"
    "$work/$numpy/bin/pip" install --quiet --disable-pip-version-check pycocotools==2.0.11 numpy==$numpy
    "$work/$numpy/bin/python" areas.py | tee -a seen
done
grep -q "numpy 2.4.6 255: 255 areas 256: [A-Z][A-Za-z]*$" seen || { echo "changed: this finding no longer holds"; exit 1; }
grep -q "numpy 1.26.4 255: 255 areas 256: 256 areas$" seen || { echo "changed: this finding no longer holds"; exit 1; }
echo "as described"
