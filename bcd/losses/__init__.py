"""Distillation losses and `TERMS`, the only registry of the project.

A loss is a pure function

    loss(student, teacher, *, valid=None, ..., **options) -> scalar tensor

    student, teacher  float (N, C, H, W), equal N, H and W; channel counts may differ where the loss says so

or, if it learns or remembers something, an `nn.Module` class built as `cls(student_shape, teacher_shape, *, **options)`
and called like the functions. A *joint* loss compares several taps at once: each of the above is a list then, fine to
coarse. Keyword-only parameters are options, whose annotations say what a method file may have (`bcd.config.terms`).
These names are facts instead, which are filled in for a loss that names them:

    valid        bool (N, H, W), True = the pixel may contribute; None = all
    label        int64 (N, H, W), 255 = ignore, at the map's resolution
    image_label  int64 (N, Hi, Wi), 255 = ignore, at the image's resolution
    boxes        N float tensors (k, 4) of x1, y1, x2, y2 as fractions of the image, k >= 0; None = not known
    classes      int, number of classes (given to a class when it is built)

Every loss keeps this contract. No gradient goes to the teacher. An invalid pixel changes neither the value nor the
gradient, whatever stands in it. No valid pixel gives 0 with zero gradients. Half precision is computed in float32,
under autocast too, and float64 stays float64. The value is finite for inputs up to 1e15. A loss without parameters is
zero when student and teacher agree.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from bcd.losses.afdcd import AfDcd
from bcd.losses.attention import at
from bcd.losses.attnfd import AttnFd
from bcd.losses.boundary import boundary, posterior_boundary
from bcd.losses.bpkd import bpkd_body, bpkd_edge
from bcd.losses.channel import cwd
from bcd.losses.cirkd import cirkd_batch
from bcd.losses.cirkd_memory import CirkdMemory
from bcd.losses.context import context
from bcd.losses.dist import dist
from bcd.losses.dkd import dkd
from bcd.losses.dsd import csd, psd
from bcd.losses.fgd import Fgd
from bcd.losses.hint import fitnet
from bcd.losses.holistic import Holistic
from bcd.losses.ifvd import ifvd
from bcd.losses.logits import kd
from bcd.losses.mgd import Mgd
from bcd.losses.nst import nst
from bcd.losses.pairwise import skd
from bcd.losses.pkd import pkd
from bcd.losses.pkt import pkt
from bcd.losses.reviewkd import ReviewKd
from bcd.losses.rkd import rkd
from bcd.losses.spkd import spkd
from bcd.losses.vid import Vid

# What a loss may ask for beside the two maps: keyword-only names that are filled in, never options of a method.
FACTS = ("valid", "label", "image_label", "boxes", "classes")


@dataclass(frozen=True)
class Term:
    """A loss and how it is wired by default. Its options are those of `bcd.config.terms.term_options`.

    Args:
        loss: the function, or the `nn.Module` class of a loss with state.
        taps: names of the tapped tensors it compares unless the method names others.
        match_channels: project the student to the teacher's channels by a learned 1x1 convolution where they differ.
        joint: the loss takes all taps at once, as lists; otherwise it is averaged over them.

    Example:
        >>> import torch
        >>> from bcd.losses import TERMS
        >>> term = TERMS["cwd"]
        >>> term.taps, term.facts, term.match_channels
        (('logits',), ('valid',), True)
        >>> logits = torch.randn(2, 19, 64, 64)
        >>> term.loss(logits, logits, temperature=4.0).item()
        0.0
    """

    loss: Callable[..., Tensor] | type[nn.Module]
    taps: tuple[str, ...]
    match_channels: bool = False
    joint: bool = False

    @property
    def facts(self) -> tuple[str, ...]:
        """The facts of a batch that the loss reads, a subset of FACTS."""
        keywords = _keywords(getattr(self.loss, "forward", self.loss))
        return tuple(name for name in FACTS if name in keywords)

    @property
    def reads_classes(self) -> bool:
        """Whether a class has to be told the number of classes when it is built."""
        return isinstance(self.loss, type) and "classes" in _keywords(self.loss)


def _keywords(call: Callable[..., object]) -> set[str]:
    """Names of the keyword-only parameters."""
    return {p.name for p in inspect.signature(call).parameters.values() if p.kind is p.KEYWORD_ONLY}


STAGES = ("stage1", "stage2", "stage3", "stage4")

TERMS: dict[str, Term] = {
    # the seed papers, and our own
    "boundary": Term(boundary, taps=STAGES),
    "context": Term(context, taps=("stage3", "stage4")),
    "posterior_boundary": Term(posterior_boundary, taps=("logits",)),
    # logits
    "kd": Term(kd, taps=("logits",)),
    "dkd": Term(dkd, taps=("logits",)),
    "dist": Term(dist, taps=("logits",)),
    "cwd": Term(cwd, taps=("logits",), match_channels=True),
    "bpkd_edge": Term(bpkd_edge, taps=("logits",)),
    "bpkd_body": Term(bpkd_body, taps=("logits",)),
    "holistic": Term(Holistic, taps=("logits",)),
    "csd": Term(csd, taps=("logits",), match_channels=True),
    # features
    "at": Term(at, taps=("neck",)),
    "fitnet": Term(fitnet, taps=("neck",), match_channels=True),
    "mgd": Term(Mgd, taps=("stage4",)),
    "fgd": Term(Fgd, taps=("stage4",)),
    "pkd": Term(pkd, taps=("neck",), match_channels=True),
    "reviewkd": Term(ReviewKd, taps=STAGES, joint=True),
    "vid": Term(Vid, taps=STAGES),
    "attnfd": Term(AttnFd, taps=("stage4", "neck")),
    "nst": Term(nst, taps=STAGES),
    # relations
    "skd": Term(skd, taps=("neck",)),
    "psd": Term(psd, taps=STAGES, joint=True),
    "ifvd": Term(ifvd, taps=("neck",)),
    "cirkd_batch": Term(cirkd_batch, taps=("neck",)),
    "cirkd_memory": Term(CirkdMemory, taps=("neck",)),
    "afdcd": Term(AfDcd, taps=("stage4",)),
    "spkd": Term(spkd, taps=("stage4",)),
    "rkd": Term(rkd, taps=("stage4",)),
    "pkt": Term(pkt, taps=("stage4",)),
}
