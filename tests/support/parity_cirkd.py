"""Golden cases of CIRKD and IFVD."""

import torch.nn.functional as F
from support.parity import Case, Golden
from torch import Tensor

from bcd.losses.cirkd import cirkd_batch
from bcd.losses.cirkd_memory import CirkdMemory
from bcd.losses.ifvd import ifvd

QUEUES = {
    "teacher_segment_queue": "region_queue",
    "segment_queue_ptr": "region_next",
    "teacher_pixel_queue": "pixel_queue",
    "pixel_queue_ptr": "pixel_next",
}
HEAD = (
    "0.weight",
    "1.weight",
    "1.bias",
    "1.running_mean",
    "1.running_var",
    "1.num_batches_tracked",
    "3.weight",
)
NAMES = QUEUES | {f"project_head.{name}": f"head.{name}" for name in HEAD}


def label(g: Golden) -> Tensor:
    """The official resize: `nearest` of the labels as floats, source index floor(i * in / out)."""
    labels = g["labels"].unsqueeze(1).double()
    return F.interpolate(labels, g["student"].shape[2:], mode="nearest").squeeze(1).long()


def memory(g: Golden) -> CirkdMemory:
    """The official module as stored, whose contrast sizes are per class (total // classes + 1)."""
    classes = g.hyper["num_classes"]
    module = CirkdMemory(
        g["student"].shape,
        g["teacher"].shape,
        classes=classes,
        pixel_memory=g.hyper["pixel_memory_size"],
        region_memory=g.hyper["region_memory_size"],
        pixel_contrast=(g.hyper["pixel_contrast_size"] - 1) * classes,
        region_contrast=(g.hyper["region_contrast_size"] - 1) * classes,
        temperature=g.hyper["contrast_temperature"],
        kd_temperature=g.hyper["contrast_kd_temperature"],
        official=True,
    )
    return g.load(module, NAMES)


def _batch(g: Golden) -> Tensor:
    return cirkd_batch(g["student"], g["teacher"], temperature=g.hyper["temperature"])


def _memory(g: Golden) -> Tensor:
    return memory(g)(g["student"], g["teacher"], label=label(g))


def _ifvd(g: Golden) -> Tensor:
    return ifvd(g["student"], g["teacher"], label=label(g), official=True)


CASES = [
    Case("cirkd_batch", "cirkd_minibatch_1x1", _batch),
    Case("cirkd_batch", "cirkd_minibatch_T0.1", _batch),
    Case("cirkd_batch", "cirkd_minibatch_b3_T1", _batch),
    Case("cirkd_memory", "cirkd_memory", _memory),
    Case("cirkd_memory", "cirkd_memory_allignored", _memory),
    Case("ifvd", "ifvd_cirkd", _ifvd),
    Case("ifvd", "ifvd_cirkd_allignored", _ifvd),
    Case("ifvd", "ifvd_official_24x32", _ifvd),
]
