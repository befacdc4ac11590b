"""Makes `bcd/config/timm_backbones.txt`, what timm's `features_only` offers: `python -m bcd.models.timm_index`.

Every model of the installed timm is built without memory (torch's meta device) and shown images of several sizes, so
that the list says what comes out, and not what a configuration promises. It takes a quarter of an hour on one core.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch

from bcd.config.timm_backbones import FILE, HEADER, TimmBackbone, chosen
from bcd.files import atomic_write
from bcd.models.timm_pyramid import arguments

# Arguments that let a transformer take images of any size; the first that a model understands and that helps is used.
OPTIONS = ("", "dynamic_img_size", "strict_img_size", "patch_size+dynamic_img_size")


def probe(name: str) -> TimmBackbone:
    """The entry of timm's model `name`: what its maps are, and for what images."""
    found = [TimmBackbone(name)]
    for options in OPTIONS:
        found.append(_probe(name, options))
        if found[-1].layout:
            return found[-1]
    return next((one for one in found if one.strides), found[0])


def _probe(name: str, options: str) -> TimmBackbone:
    import timm

    try:
        with torch.device("meta"):
            net: Any = timm.create_model(name, features_only=True, **arguments(options)).eval()
    except Exception:  # each architecture fails in its own way
        return TimmBackbone(name)
    strides, channels = tuple(net.feature_info.reduction()), tuple(net.feature_info.channels())
    entry = TimmBackbone(name, strides, channels, options=options)
    if not chosen(strides):
        return entry
    config: Any = timm.get_pretrained_cfg(name)
    side = config.input_size[-1] if config else 224
    # An odd size needs a size that is no multiple of anything; the others are no squares.
    for multiple, height, width in ((1, 97, 131), (32, 96, 160), (64, 128, 192), (side, side, 2 * side)):
        if layout := _layout(net, entry, height, width):
            return TimmBackbone(name, strides, channels, layout, multiple, options)
    only = side if _layout(net, entry, side, side) else 0
    return TimmBackbone(name, strides, channels, multiple=only, options=options)


def _layout(net: Any, entry: TimmBackbone, height: int, width: int) -> str:
    """The layout of the maps of such an image; empty if it fails, or if they have not their strides' sizes."""
    try:
        with torch.no_grad(), torch.device("meta"):
            shapes = [tuple(x.shape) for x in net(torch.zeros(2, 3, height, width))]
    except Exception:  # assertions, shapes that do not fit, and what else authors check
        return ""
    wanted: dict[str, list[tuple[int, ...]]] = {"nchw": [], "nhwc": []}
    used = chosen(entry.strides)
    for index in used:
        stride, channels = entry.strides[index], entry.channels[index]
        size = (-(-height // stride), -(-width // stride))
        wanted["nchw"].append((2, channels, *size))
        wanted["nhwc"].append((2, *size, channels))
    return next((layout for layout, want in wanted.items() if [shapes[index] for index in used] == want), "")


def main() -> None:
    """Write the index, or print the lines of the models that are named."""
    import timm

    warnings.simplefilter("ignore")
    if sys.argv[1:]:
        print("\n".join(probe(name).line for name in sys.argv[1:]))
        return
    found: list[str] = []
    names = timm.list_models()
    for number, name in enumerate(names, 1):
        found.append(probe(name).line)
        print(f"{number} of {len(names)}: {found[-1]}", file=sys.stderr, flush=True)
    atomic_write(FILE, "\n".join([HEADER.format(version=timm.__version__), *found]) + "\n")


if __name__ == "__main__":
    main()
