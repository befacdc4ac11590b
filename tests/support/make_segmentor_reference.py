"""Write tests/support/segmentor_reference.json: what mmsegmentation's own models give.

Their weights are made from their keys.

Run by hand, in an environment with mmsegmentation 1.2.2, mmengine 0.10.7, mmcv-lite 2.1.0 and ftfy, regex:

    PYTHONPATH=tests python tests/support/make_segmentor_reference.py

For each model of `test_segmentor_families.py` and each size: 32 samples and the largest absolute value of the logits in
float64; its keys with their shapes as a hash, its number of parameters.
"""

import hashlib
import json
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch
from support.weight_rule import SIZES, image, sample, weight

# mmcv-lite has no compiled operators, and none of these models calls one, but mmseg imports them all.
for name in ("mmcv._ext", "mmcv.ops", "mmcv.ops.point_sample"):
    sys.modules[name] = MagicMock()

import mmseg.models  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402

R18 = {"backbone.depth": 18, "decode_head.in_channels": 512, "decode_head.channels": 128}
AUX18 = {"auxiliary_head.in_channels": 256, "auxiliary_head.channels": 64}
STAGE = "backbone.extra.stage"
W18_SMALL = {
    **{f"{STAGE}{i}.num_blocks": (2,) * i for i in (1, 2, 3, 4)},
    f"{STAGE}3.num_modules": 3,
    f"{STAGE}4.num_modules": 2,
}
W48 = {
    **{f"{STAGE}{i}.num_channels": (48, 96, 192, 384)[:i] for i in (2, 3, 4)},
    "decode_head.in_channels": (48, 96, 192, 384),
    "decode_head.channels": 720,
}
SWIN_B12 = {
    "backbone.embed_dims": 128,
    "backbone.depths": (2, 2, 18, 2),
    "backbone.num_heads": (4, 8, 16, 32),
    "backbone.window_size": 12,
    "decode_head.in_channels": (128, 256, 512, 1024),
    "auxiliary_head.in_channels": 512,
}
MIT_B1 = {"backbone.embed_dims": 64, "decode_head.in_channels": (64, 128, 320, 512)}
# model: base configuration of mmsegmentation, changes
MODELS = {
    "isanet-r18": ("isanet_r50-d8", {**R18, **AUX18}),
    "isanet-r101": ("isanet_r50-d8", {"backbone.depth": 101}),
    "deeplabv3plus-r101": ("deeplabv3plus_r50-d8", {"backbone.depth": 101}),
    "fcn-hrnet-w18s": ("fcn_hr18", W18_SMALL),
    "fcn-hrnet-w48": ("fcn_hr18", W48),
    "upernet-swin-t": ("upernet_swin", {}),
    "upernet-swin-b12": ("upernet_swin", SWIN_B12),
    "segformer-b1": ("segformer_mit-b0", MIT_B1),
}


def without_sync(config):
    """The same configuration with plain batch norm, in place."""
    for value in config.values() if isinstance(config, dict) else config:
        if isinstance(value, dict | list | tuple):
            without_sync(value)
    if isinstance(config, dict) and config.get("type") == "SyncBN":
        config["type"] = "BN"
    return config


def built(base, changes):
    folder = Path(mmseg.__file__).parent / ".mim" / "configs" / "_base_" / "models"
    config = Config.fromfile(folder / f"{base}.py")
    config.merge_from_dict({f"model.{key}": value for key, value in changes.items()} | {"model.pretrained": None})
    return mmseg.registry.MODELS.build(without_sync(config.model)).eval().double()


@torch.no_grad()
def facts(model):
    state = model.state_dict()
    for key, tensor in state.items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(np.asarray(weight(key, tensor.shape))))
    lines = sorted(f"{key} {tuple(tensor.shape)}" for key, tensor in state.items() if "position_index" not in key)
    logits = {size: model.decode_head(model.backbone(torch.from_numpy(image(size)))).numpy() for size in SIZES}
    return {
        "keys_sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "logits": {
            size: {"largest": np.abs(array).max(), "sample": sample(array, 32).tolist()}
            for size, array in logits.items()
        },
    }


def main():
    init_default_scope("mmseg")
    found = {name: facts(built(*arguments)) for name, arguments in MODELS.items()}
    Path(__file__).with_name("segmentor_reference.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
