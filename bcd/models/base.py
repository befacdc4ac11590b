"""What every model is to the rest of the suite: a module with named taps that knows where its weights came from."""

from __future__ import annotations

from typing import Self

from torch import nn

from bcd.models.weights import InitialWeights


class DenseModel(nn.Module):
    """A segmentor or a detector.

    taps     tap name -> path of the module whose output it is, `path:i` for item i of a list output
             (see `bcd.distill.taps.Taps`)
    weights  where the initial weights came from
    frozen   modules that stay as they were loaded (`bcd.models.frozen`)
    """

    taps: dict[str, str]
    weights: InitialWeights
    frozen: tuple[nn.Module, ...] = ()

    def train(self, mode: bool = True) -> Self:
        """As every module's, but what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.training = False
        return self
