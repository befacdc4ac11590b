"""Archives from their public addresses, and those that people have to get by hand because there is none."""

from collections.abc import Sequence
from pathlib import Path

from bcd.config.schema.data import Archive
from bcd.data.acquire.download import Progress, download
from bcd.data.acquire.mirror import Obtained, is_official
from bcd.errors import UserError
from bcd.files import sha256_file


def from_network(
    dataset: str, archives: Sequence[Archive], page: str, directory: Path, progress: Progress
) -> list[Obtained]:
    """The archives in `directory`: downloaded, or found there when they have no address.

    page: where people get the latter. Raises UserError, before anything is downloaded, when one of them is missing; and
    when the bytes are not the official ones, or `download` fails.
    """
    missing = [one.archive for one in archives if not (one.url or (directory / Path(one.archive).name).is_file())]
    if missing:
        files = " and ".join(Path(name).name for name in missing)
        raise UserError(
            f"{' and '.join(missing)} {'have' if len(missing) > 1 else 'has'} no download address; run `bcd fetch "
            f"{dataset} --mirror DIR`, or get {files} by hand ({page}), put what you got into {directory} and run "
            f"`bcd fetch {dataset}` again"
        )
    return [_obtain(dataset, archive, directory / Path(archive.archive).name, progress) for archive in archives]


def _obtain(dataset: str, archive: Archive, path: Path, progress: Progress) -> Obtained:
    if archive.url:
        sha256 = download(
            archive.url, path, size=archive.bytes, sha256=archive.sha256, pinned=bool(archive.md5), progress=progress
        )
        note = "sha256 recorded at first fetch"
    else:
        sha256 = sha256_file(path)
        note = f"{path.name} put in place by hand, no hash is published"
    known = is_official(archive, path, sha256)
    if known is False:
        raise UserError(
            f"{path} is not the official file: its hash is not the one in params/datasets.yaml; delete it, get it anew "
            f"and run `bcd fetch {dataset}` again, and if it repeats, check the pinned hash"
        )
    # Where no hash is known, the official address vouches for the bytes.
    official = known or archive.url is not None
    return Obtained(archive, path, path.stat().st_size, sha256, archive.url, official, "" if known else note)
