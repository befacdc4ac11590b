"""Files that were changed by hand: no fetch overwrites them unasked, and `bcd fetch NAME --accept` takes them over."""

from collections.abc import Mapping
from pathlib import Path

from bcd.data.acquire import manifest as manifests
from bcd.data.acquire.look import Look, by_path, split_note
from bcd.data.acquire.manifest import FILES, Fields, Manifest
from bcd.data.acquire.stage import alone
from bcd.errors import UserError

BY_HAND = "changed by hand"


def accept(root: Path, look: Look, splits: Mapping[str, int]) -> Manifest:
    """Take over what was changed by hand in the payload of a finished dataset: it is recorded as it lies there.

    splits: the samples per split that params have. The manifest says from then on that the files are not the official
    ones. Raises what `look` raises, and UserError where there is no finished dataset or the samples are others.
    """
    with alone(root):
        found = manifests.load(root)
        files = manifests.scan(root, sorted({Path(path).parts[0] for path in found.files}))
        if by_path(files) == found.files:
            return found
        facts = look.splits(root, by_path(files))
        split_note(str(root), facts["splits"], splits, found.origin == "mirror" and not found.official)
        check = look.check(root, by_path(files), facts["splits"])
        note = "; ".join(dict.fromkeys(part for part in (*found.note.split("; "), BY_HAND) if part))
        fields: Fields = {**found.fields, **facts, "check": check, "official": False, "note": note}
        return manifests.write(root, fields, files)


def require_untouched(root: Path) -> None:
    """Raise UserError where fetching again would overwrite what was changed by hand."""
    try:
        found = manifests.load(root)
    except UserError:
        return  # nothing finished, so nothing that anybody would have mended
    if changed := found.changed():
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(
            f"{root / changed[0]}{more} differs from what {FILES} records; {manifests.remedy(found.dataset)}"
        )
    if BY_HAND in found.note:
        raise UserError(
            f"{root} holds files changed by hand, which a new fetch would overwrite; run `bcd fetch {found.dataset} "
            "--force` to have them as they come"
        )
