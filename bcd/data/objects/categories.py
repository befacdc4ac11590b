"""Which categories of annotations are no classes of the dataset."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from bcd.errors import nearest

if TYPE_CHECKING:
    from bcd.data.objects.annotations import Instances

NAMED = 5  # of each kind, in a sentence


def classless(document: Instances, classes: Sequence[str], skip: Collection[int] = ()) -> str:
    """What to say of categories that annotations have and `classes` has not; "" where there are none.

    The sentence speaks of the entry, and of no split, so that it is the same for all splits. skip: ids of annotations
    that are left out.
    """
    names = {category["id"]: category["name"] for category in document["categories"]}
    used = {names.get(entry["category_id"]) for entry in document["annotations"] if entry["id"] not in skip}
    strange = [name for name in dict.fromkeys(names.values()) if name in used and name not in classes]
    if not strange:
        return ""
    absent = [name for name in classes if name not in names.values()]
    where = "`classes` of the dataset in params/datasets.yaml"
    remedy = f"correct {where}" if absent else f"add {'it' if len(strange) == 1 else 'them'} to {where}"
    hints = [f"'{name}' is no category ({nearest(name, strange).removeprefix('; ')})" for name in absent[:NAMED]]
    return (
        f"annotations have the {'category' if len(strange) == 1 else 'categories'} {_listed(strange)}, and `classes` "
        f"has {_listed(classes)}; {remedy}{': ' if hints else ''}{', '.join(hints)}; only if such objects are not "
        "wanted, list the ids of their annotations under skip_annotations there"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:NAMED]) + more
