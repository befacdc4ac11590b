#!/bin/bash
# torchvision 0.29.2: LastLevelP6P7 makes P6 of C5 or of P5 by comparing two numbers of channels.
#
# RetinaNet's P6 is a strided convolution on C5, the last stage. One would expect that LastLevelP6P7(in_channels, out_channels)
# takes the last stage whatever its width, or that a caller says which map is meant.
# Seen (Python 3.11, torch 2.14.1, torchvision 0.29.2): a last stage of 32 channels below a pyramid of 16 gives a P6 of C5. One of 16
# channels, as small backbones have it, silently gives a P6 of P5: a network of the same shapes with other outputs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat > p6.py <<'PYTHON'
from collections import OrderedDict

import torch
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

for width in (32, 16):
    torch.manual_seed(0)
    pyramid = FeaturePyramidNetwork([8, width], 16, LastLevelP6P7(width, 16))
    stages = OrderedDict(c4=torch.randn(1, 8, 16, 16), c5=torch.randn(1, width, 8, 8))
    with torch.no_grad():
        maps = pyramid(stages)
        candidates = {"c5": stages["c5"], "p5": maps["c5"]}
        made_of = [
            name
            for name, x in candidates.items()
            if x.shape[1] == width and torch.equal(pyramid.extra_blocks.p6(x), maps["p6"])
        ]
    print(f"last stage of {width} channels, pyramid of 16: P6 is made of {' and '.join(made_of)}")
PYTHON
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.2
env/bin/python p6.py | tee seen
grep -q "of 32 channels, pyramid of 16: P6 is made of c5$" seen || { echo "changed: this finding no longer holds"; exit 1; }
grep -q "of 16 channels, pyramid of 16: P6 is made of p5$" seen || { echo "changed: this finding no longer holds"; exit 1; }
echo "as described"
