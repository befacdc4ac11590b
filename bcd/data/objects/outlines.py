"""Which objects have no outline, so that nothing can learn their masks."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from bcd.data.objects.annotations import Instances, has_outline


def without_outline(documents: Iterable[tuple[str, Instances]], skip: Collection[int] = ()) -> str:
    """The first such object and how many more there are, as the start of a sentence; "" for none.

    documents: with what each is called. skip: ids of annotations that are left out.
    """
    bare = [
        (where, one, entry)
        for where, one in documents
        for entry in one["annotations"]
        if entry["id"] not in skip and not has_outline(entry)
    ]
    if not bare:
        return ""
    where, one, first = bare[0]
    image = next((image["file_name"] for image in one["images"] if image["id"] == first["image_id"]), first["image_id"])
    lacks = "has no polygon of three points or more" if first.get("segmentation") else "has no segmentation"
    more = f", and neither have {len(bare) - 1} more" if len(bare) > 1 else ""
    return f"{where}: annotation {first['id']} of the image {image} {lacks}{more}"
