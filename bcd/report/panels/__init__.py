"""Pictures of predictions beside their labels, with the errors at boundaries marked."""

from bcd.report.panels.pictures import run_panel, table_panels

__all__ = ["run_panel", "table_panels"]
