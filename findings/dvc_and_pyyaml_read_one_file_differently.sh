#!/bin/bash
# One params file, two readers: DVC 3.67.1 reads YAML 1.2, PyYAML 6.0.3 reads YAML 1.1.
#
# One would expect that a params file which DVC edits and a script reads with yaml.safe_load holds one set of numbers.
# Seen (Python 3.11, DVC 3.67.1 with its ruamel.yaml, PyYAML 6.0.3):
#   text in the file    DVC            PyYAML
#   5e-05               0.00005        the text '5e-05'
#   010                 10             8
#   1:30                the text       90
#   no                  the text       False
# And DVC itself writes 5e-05 when it is told 0.00005, as `dvc exp run -S file:lr=0.00005` does.
# So a number that DVC has set arrives in such a script as text.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check dvc==3.67.1 pyyaml==6.0.3
cd "$work"
cat > params.yaml <<'YAML'
scientific: 5e-05
padded: 010
minutes: 1:30
word: no
lr: 0.001
YAML
"$work/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import yaml
from dvc.utils.serialize import load_yaml, modify_yaml

with open("params.yaml") as file:
    pyyaml = yaml.safe_load(file)
dvc = load_yaml("params.yaml")
print("dvc", version("dvc"), "ruamel.yaml", version("ruamel.yaml"), "pyyaml", version("pyyaml"))
for name in ("scientific", "padded", "minutes", "word"):
    print(f"{name:12} dvc {dvc[name]!r:12} pyyaml {pyyaml[name]!r}")
with modify_yaml("params.yaml") as params:
    params["lr"] = 0.00005
written = next(line for line in open("params.yaml") if line.startswith("lr:")).strip()
with open("params.yaml") as file:
    read = yaml.safe_load(file)["lr"]
print(f"dvc writes {written!r}, pyyaml reads {read!r}")

found = [(dvc[name], pyyaml[name]) for name in ("scientific", "padded", "minutes", "word")]
expected = [(5e-05, "5e-05"), (10, 8), ("1:30", 90), ("no", False)]
if found != expected or written != "lr: 5e-05" or read != "5e-05":
    sys.exit("changed: this finding no longer holds")
print("as described")
PYTHON
