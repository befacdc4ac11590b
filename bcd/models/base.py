"""What every model is to the rest of the suite: a module with named taps that knows where its weights came from."""

from __future__ import annotations

from torch import nn

from bcd.models.weights import InitialWeights


class DenseModel(nn.Module):
    """A segmentor or a detector.

    taps     tap name -> path of the module whose output it is, `path:i` for item i of a list output
             (see `bcd.distill.taps.Taps`)
    weights  where the initial weights came from
    """

    taps: dict[str, str]
    weights: InitialWeights
