"""How the files of a dataset are looked at, and what of it stands in its manifest."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bcd.data.acquire import manifest as manifests
from bcd.data.acquire.manifest import Fields, File, Manifest, Request, SplitFacts
from bcd.data.acquire.stage import alone
from bcd.errors import UserError


@dataclass(frozen=True)
class Look:
    """How the files of a dataset are looked at, given the folder of a tree and its files by path.

    splits: what the splits consist of; raises UserError when something is missing.
    check: looks at every sample, given the samples per split, too; raises UserError when something is wrong. Its
    result has the params on which it depends beside the files under "of".
    of: these params, as JSON values.
    """

    splits: Callable[[Path, Mapping[str, File]], SplitFacts]
    check: Callable[[Path, Mapping[str, File], Mapping[str, int]], Mapping[str, Any]] = lambda root, files, splits: {}
    of: Request = field(default_factory=dict)


def looked_at(found: Manifest, of: Request) -> bool:
    """Whether the manifest says what a look at the files by these params finds."""
    return found.complete and found.check.get("of", {}) == json.loads(json.dumps(of))


def facts_of(look: Look, root: Path, files: Mapping[str, File]) -> SplitFacts:
    """What the splits consist of and what is in them; raises what `look` raises."""
    facts = look.splits(root, files)
    return {**facts, "check": look.check(root, files, facts["splits"])}


def looked_again(root: Path, look: Look) -> Manifest:
    """Look at the files of a finished dataset again; see `looked`. Raises what `manifest.load` and `looked` raise."""
    with alone(root):
        return looked(manifests.load(root), look)


def looked(found: Manifest, look: Look) -> Manifest:
    """The manifest with what is found by a look at its files as they lie there; written only if that is something new.

    Raises what `look` raises.
    """
    fields: Fields = {**found.fields, **facts_of(look, found.root, found.files)}
    return found if fields == found.fields else manifests.write(found.root, fields, found.files.values())


def split_note(where: str, found: Mapping[str, int], wanted: Mapping[str, int], sample: bool) -> str:
    """What to say of a dataset with `found` samples per split where params have `wanted`: "" when they are equal.

    Raises UserError unless it may be a `sample` and holds anything. `where`: what the message calls the dataset.
    """
    if dict(found) == dict(wanted):
        return ""
    if not sample or not any(found.values()):
        raise UserError(
            f"{where} has the splits {dict(found)}, but params/datasets.yaml says {dict(wanted)}; "
            "complete the archives, the mirror or the folder, or correct `splits`"
        )
    return f"sample: {', '.join(f'{n} of {wanted.get(split, 0)} {split}' for split, n in found.items())} images"


def by_path(files: Iterable[File]) -> dict[str, File]:
    """The files by their paths."""
    return {file.path: file for file in files}
