"""Forms in which a finished student leaves the suite."""

from __future__ import annotations

from operator import not_
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bcd.config.schema.base import Strict

ExportFormat = Literal["onnx", "openvino", "executorch"]
Precision = Literal["float32", "int8", "int8-all"]
CALIBRATION = 64  # training images, where nobody says how many


class Export(Strict):
    """A file format, and the numbers in it."""

    format: ExportFormat
    """Whose file it is; docs/reference/chip.md has the toolchains."""
    precision: Precision = "float32"
    """Of weights and activations. int8 is static quantisation after training, with one scale for each channel, which
    leaves the last convolution and the resize in float32; int8-all quantises these, too."""
    dynamic: bool = Field(default=False, exclude_if=not_)
    """Height and width stay open, for datasets whose images differ in size."""
    calibration: Annotated[int, Field(ge=1, le=10000)] | None = Field(default=None, exclude_if=not_)
    """With int8: how many training images the ranges of activations are measured on; null for `CALIBRATION`. In a
    suite, a dataset that has fewer gives all of them, and the caption says how many these were."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(default=0, exclude_if=not_)
    """With int8: those images are drawn with it."""

    @model_validator(mode="after")
    def _calibrated_where_quantised(self) -> Export:
        if not self.quantised and (self.calibration or self.seed):
            raise ValueError("`calibration` and `seed` belong to the precision int8; remove them, or set it")
        return self

    @model_validator(mode="after")
    def _open_where_the_format_can(self) -> Export:
        if self.dynamic and self.format == "executorch":
            raise ValueError("`dynamic`: an ExecuTorch program plans its memory for one size; leave it out")
        return self

    @property
    def quantised(self) -> bool:
        """Whether anything in it is int8."""
        return self.precision != "float32"
