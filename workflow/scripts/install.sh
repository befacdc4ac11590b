#!/bin/sh
# install.sh PYTHON VENV: make VENV hold exactly requirements.lock and this package; nothing to do costs nothing.
# uv installs when it can be had (from PATH, else from the package index); pip does otherwise.
set -eu
python=$1 venv=$2
wanted=$(cat requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1)
stamp=$venv/installed
if [ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ]; then exit 0; fi

command -v "$python" >/dev/null || python=python3
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "install: Python 3.11 is needed and '$python' is $("$python" -V 2>&1); install it, or say make PYTHON=/path/to/python3.11" >&2
    exit 2
}
free=$(df -Pk . | awk 'NR==2 {print int($4 / 1048576)}')
[ "$free" -ge 8 ] || { echo "install: $free GiB free here, 8 are needed; free space and run the same command again" >&2; exit 2; }

uv=$(command -v uv || true)
if [ ! -x "$venv/bin/python" ]; then
    echo "install: making $venv" >&2
    if [ -n "$uv" ]; then
        "$uv" venv --quiet --python "$python" "$venv"
    else
        "$python" -m venv "$venv" || {
            echo "install: this Python cannot make environments; on Debian and Ubuntu: apt-get install python3-venv, then run the same command again" >&2
            exit 2
        }
    fi
fi
if [ -z "$uv" ]; then
    # Apart from the environment's own packages, which `uv pip sync` makes equal to the lock.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --target "$venv/bootstrap" uv 2>/dev/null \
        && uv=$venv/bootstrap/bin/uv
fi
echo "install: packages of requirements.lock (about 6 GiB on disk)" >&2
if [ -n "$uv" ]; then
    VIRTUAL_ENV=$venv "$uv" pip sync --quiet --require-hashes requirements.lock
    VIRTUAL_ENV=$venv "$uv" pip install --quiet --no-deps --no-build-isolation --editable .
else
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
fi
echo "$wanted" > "$stamp"
