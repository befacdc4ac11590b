"""Pictures of predictions beside their labels, with the errors at boundaries marked."""

from bcd.report.panels.colours import palette_of
from bcd.report.panels.pictures import run_panel, table_panels

__all__ = ["palette_of", "run_panel", "table_panels"]
