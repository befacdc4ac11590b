"""Which models leave the suite as files of other runtimes: known before anything is trained."""

from __future__ import annotations

from bcd.config.schema.models import AnyModel, DetectionModel
from bcd.errors import UserError

# Heads that pool a map to a grid of cells: traced with one size, their exported pooling is wrong at every other.
STATIC_HEADS = ("psp", "uper")
# Backbones whose cyclic shifts and paddings of windows torch.export follows, with open sides, by expressions that grow
# with every block: after seven minutes it had not come to the end of a tiny one.
STATIC_BACKBONES = ("swinv2_",)
# Heads of detectors that say the same number of things of every image.
DENSE_HEADS = ("retinanet", "fcos")


def require_exportable(model: AnyModel, *, dynamic: bool, where: str) -> None:
    """Raise UserError, starting with `where`, for a model whose graph no file holds, or not with any size of images.

    dynamic: whether height and width stay open.
    """
    if dynamic and model.backbone.startswith(STATIC_BACKBONES):
        raise UserError(
            f"{where}: exporters come to no end with the backbone '{model.backbone}' where sizes stay open; leave "
            "`dynamic` out, and export one file for each size"
        )
    if isinstance(model, DetectionModel):
        only = f"{where}: only RetinaNet and FCOS of engine torchvision are exported"
        if model.head not in DENSE_HEADS:
            raise UserError(
                f"{only}: an R-CNN looks at regions that it finds in between, as many as there are; choose one of "
                "those heads"
            )
        if model.detection.engine != "torchvision":
            raise UserError(f"{only}: none of {model.detection.engine} was tried; choose engine torchvision")
    elif dynamic and model.head in STATIC_HEADS:
        raise UserError(
            f"{where}: the head '{model.head}' pools to fixed grids, which exporters get wrong at other sizes; leave "
            "`dynamic` out, and export one file for each size"
        )
