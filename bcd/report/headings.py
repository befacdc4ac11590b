"""How tables and figures call metrics, pairs and rows, and how a partial table says that it is one."""

from __future__ import annotations

import re
from typing import Any

TITLES = {"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc", "biou": "bIoU", "conn": "Conn", "frag": "Frag"}


def title(metric: str) -> str:
    """A metric's column heading: `miou` -> mIoU, `trimap3` -> Trimap-3 (pixels), `ap_s_mask` -> mask AP-S."""
    if match := re.fullmatch(r"(trimap|bf)(\d+)", metric):
        return f"{'Trimap' if match[1] == 'trimap' else 'BF'}-{match[2]}"
    if match := re.fullmatch(r"ap(50|75|_[sml])?(?:_(mask|boundary))?", metric):
        return f"{match[2] or ''} AP{(match[1] or '').replace('_', '-').upper()}".strip()
    return TITLES.get(metric, metric)


def heading(pair: dict[str, Any]) -> str:
    """What a block of rows is about, in words."""
    elsewhere = pair["teacher_dataset"] != pair["dataset"]
    trained = f" (trained on {pair['teacher_dataset']})" if elsewhere else ""
    return f"{pair['student']['name']} from {pair['teacher']['name']}{trained} on {pair['dataset']}"


def headline(content: dict[str, Any]) -> str:
    """`suite: table`, and what a partial one lacks."""
    name = f"{content['suite']}: {content['table']}"
    return f"{name} ({partial_text(content)})" if "partial" in content else name


def partial_text(content: dict[str, Any]) -> str:
    """`PARTIAL: 7 of 33 runs are missing`, of a partial table."""
    partial = content["partial"]
    missing = sum(map(len, partial["missing"].values()))
    return f"PARTIAL: {missing} of {partial['runs']} runs are missing"


def row_title(row: dict[str, Any], seeds: int) -> str:
    """The method, and how many of the table's seeds its row has where these are not all of them."""
    there = len(row["runs"])
    return f"{row['method']} ({there} of {seeds} seeds)" if 0 < there < wanted_runs(row, seeds) else row["method"]


def wanted_runs(row: dict[str, Any], seeds: int) -> int:
    """How many runs a row of a whole table has."""
    return 1 if row["method"] == "teacher" else seeds
