"""What runs cost, from their records: facts of the store, which differ when a run is trained again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bcd.planning.cost import duration
from bcd.report.content import MeasuredRow, PairBlock, TableContent
from bcd.report.page.inference import Size
from bcd.report.render.text import NOTHING, file_texts, heading, scaled
from bcd.runs.record import Record

HEADS = ("parameters", "MACs", "training", "a step", "memory")
FILE_HEADS = ("file", "time of a file")


def sizes(records: Mapping[str, Record]) -> dict[str, Size]:
    """Key -> what the run's model costs at inference."""
    return {key: Size(one.parameters, one.macs) for key, one in records.items()}


def costs(content: TableContent, records: Mapping[str, Record]) -> dict[str, Any]:
    """What each row of a table costs, as texts: JSON values.

    records: by the key of a run. Times are medians over the row's runs, and memory is the most that any took.
    """
    return {"blocks": [_block(pair, records) for pair in content.pairs]}


def _block(pair: PairBlock, records: Mapping[str, Record]) -> dict[str, Any]:
    rows = [
        {"title": row.method, "cells": [*_trained(row, records), *(file_texts(row) if pair.export else [])]}
        for row in pair.rows
    ]
    heads = [*HEADS, *(FILE_HEADS if pair.export else [])]
    return {"heading": heading(pair), "heads": heads, "rows": rows}


def _trained(row: MeasuredRow, records: Mapping[str, Record]) -> list[str]:
    found = [records[run.key] for run in row.runs if run.key in records]
    if not found:
        return [NOTHING] * len(HEADS)
    return [
        _one(scaled(one.parameters) for one in found),
        _one(scaled(one.macs) for one in found),
        duration(median(one.train_seconds for one in found)),
        f"{1000 * median(one.step_seconds for one in found):.3g} ms",
        f"{scaled(max(one.peak_memory_bytes for one in found))}B",
    ]


def _one(texts: Any) -> str:
    """The one text that all runs share, or all that they have."""
    return ", ".join(dict.fromkeys(texts))


def devices(records: Sequence[Record]) -> list[str]:
    """The kinds of device that trained, such as `cpu`."""
    return sorted({one.device.partition(":")[0] for one in records})
