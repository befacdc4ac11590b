"""How a student is pulled towards its teacher: taps, the weighted sum of terms, and both for a loop of one's own.

`from bcd.distill import Distiller, load_method` is what another project needs; docs/guides/library.md has examples.
"""

from bcd.config.load import load_method
from bcd.config.schema.methods import WeightedTerm
from bcd.distill.distiller import Distiller

__all__ = ["Distiller", "WeightedTerm", "load_method"]
