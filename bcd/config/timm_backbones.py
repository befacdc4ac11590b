"""What timm's feature pyramids are, known without importing timm: `timm_backbones.txt`, which a command makes.

A line is `name strides channels layout multiple options`. `-` is an empty field; a layout of `-` is no backbone here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).with_suffix(".txt")
HEADER = "# timm {version}, by `python -m bcd.models.timm_index`: name strides channels layout multiple options"
STRIDES = (4, 8, 16, 32)  # of the four stages of every backbone
SIDE = 16  # of a patch, where one of another side is scaled to it
PLAIN = (8, 16, 32)  # the strides that a simple pyramid can start from


@dataclass(frozen=True)
class TimmBackbone:
    """What `timm.create_model(name, features_only=True)` gives.

    strides   of its maps, as timm has them by default; () where timm has no maps of it
    channels  of its maps
    layout    `nchw` or `nhwc`; empty where images of no two sizes give maps of its strides
    multiple  sides of an image must be multiples of it; without a layout the only side, 0 where there is none
    options   words for `bcd.models.timm_pyramid.arguments`, joined by `+`, that make it take images of any size
    """

    name: str
    strides: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()
    layout: str = ""
    multiple: int = 0
    options: str = ""

    @property
    def plain(self) -> bool:
        """Whether all its maps have one stride, so that a pyramid has to be made of the last."""
        return len(chosen(self.strides)) == 1

    @property
    def refusal(self) -> str:
        """Why it is no backbone here; empty if it is one."""
        if not self.strides:
            return f"timm {index_version()} gives no feature maps of it"
        if not chosen(self.strides):
            listed = ", ".join(map(str, self.strides))
            return f"its maps have strides {listed}, and 4, 8, 16 and 32 are needed"
        if self.layout:
            return ""
        return (
            f"it takes images of {self.multiple} x {self.multiple} alone"
            if self.multiple
            else "its maps have odd sizes"
        )

    @property
    def line(self) -> str:
        """Its line of the file."""
        fields = (self.name, _joined(self.strides), _joined(self.channels), self.layout, self.multiple, self.options)
        return " ".join(str(field) or "-" for field in fields)


def chosen(strides: Sequence[int]) -> tuple[int, ...]:
    """Indices of the maps that are used: the last of each of STRIDES, or the last of a plain network; () if neither."""
    if set(strides) >= set(STRIDES):
        return tuple(max(i for i, one in enumerate(strides) if one == stride) for stride in STRIDES)
    return (len(strides) - 1,) if len(set(strides)) == 1 and strides[0] in PLAIN else ()


@lru_cache
def timm_backbones() -> dict[str, TimmBackbone]:
    """Every model of the timm that the file was made with, by name."""
    found = (_parsed(line) for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return {one.name: one for one in found}


@lru_cache
def index_version() -> str:
    """The version of timm that the file was made with."""
    return FILE.read_text(encoding="utf-8").split(maxsplit=3)[2].rstrip(",")


def _parsed(line: str) -> TimmBackbone:
    name, strides, channels, layout, multiple, options = ("" if field == "-" else field for field in line.split(" "))
    return TimmBackbone(name, _numbers(strides), _numbers(channels), layout, int(multiple), options)


def _numbers(field: str) -> tuple[int, ...]:
    return tuple(map(int, field.split(","))) if field else ()


def _joined(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
