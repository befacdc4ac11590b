#!/bin/sh
# install.sh VENV [PYTHON]: make VENV hold exactly requirements.lock and this package; nothing to do costs nothing.
# Without PYTHON a working environment is kept, and a new one takes the newest Python on PATH that fits.
# uv installs when it can be had (from PATH, else from the package index); pip does otherwise.
set -eu
cd -P .
venv=$1 python=${2-}
wanted=$(cat requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1)
stop() {
    echo "install: $1" >&2
    exit 2
}

# Scripts of an environment name its folder: moved or copied, it would run another copy's code or none.
base_of_venv() { readlink -f "$venv/bin/python" 2>/dev/null || true; }
made_here() { [ -x "$venv/bin/python" ] && [ "$(cat "$venv/made-here" 2>/dev/null)" = "$PWD $(base_of_venv)" ]; }

# Says where the interpreter really is, behind a shim or an environment; or fails and says what is wrong with it.
check='
import sys

def stop(reason):
    print(reason)
    sys.exit(1)

found = sys.version_info[:2]
if not (3, 11) <= found <= (3, 14):
    stop("is Python %d.%d; install one of 3.11 to 3.14, or say make PYTHON=/path/to/python3" % found)
import os, shutil, sysconfig
if not sys.argv[1]:
    try:
        import ensurepip, venv
    except ImportError:
        stop("cannot make environments; on Debian and Ubuntu: apt-get install python3-venv")
# immutables 0.21, which Snakemake needs, has no wheel for 3.14.
header = os.path.join(sysconfig.get_path("include"), "Python.h")
if found == (3, 14) and not (shutil.which("cc") and os.path.exists(header)):
    stop("has to compile one package and cannot; on Debian and Ubuntu: apt-get install gcc python3-dev")
print(os.path.realpath(sys._base_executable))
'
uv=$(command -v uv) && "$uv" --version >/dev/null 2>&1 || uv=
look_at() { "$1" -c "$check" "$uv" 2>/dev/null; }
newest() {
    IFS=:
    set -f
    for name in python3.14 python3.13 python3.12 python3.11 python3; do
        for folder in $PATH; do
            [ -x "$folder/$name" ] && look_at "$folder/$name" >/dev/null && echo "$folder/$name" && return
        done
    done
    echo python3
}

if [ -n "$python" ] || ! made_here; then
    : "${python:=$(newest)}"
    base=$(look_at "$python") ||
        stop "'$python' ${base:-does not start; install Python 3.11 to 3.14, or say make PYTHON=/path/to/python3}"
    if ! made_here || [ "$(base_of_venv)" != "$base" ]; then
        if [ -e "$venv" ]; then
            [ -e "$venv/pyvenv.cfg" ] || stop "$venv is not an environment; where nothing in it is needed, say make clean"
            echo "install: removing $venv, which belongs to another folder or Python" >&2
        fi
        rm -rf "$venv"
    fi
fi
if [ "$(cat "$venv/installed" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

free=$(df -Pk . | awk 'NR==2 {print int($4 / 1048576)}')
[ "$free" -ge 8 ] || stop "$free GiB free here, 8 are needed; free space and run the same command again"

made_here || echo "install: making $venv with $base" >&2
echo "install: packages of requirements.lock (about 6 GiB on disk)" >&2
# The installers are quiet for minutes; whoever watches sees that something happens.
if [ -t 2 ]; then
    began=$(date +%s)
    while sleep 2 && kill -0 $$ 2>/dev/null; do
        printf '\rinstall: %s s' $(($(date +%s) - began)) >&2
    done &
    clock=$!
    trap 'kill $clock 2>/dev/null; echo >&2' EXIT
    trap 'exit 130' INT
fi

if ! made_here; then
    if [ -n "$uv" ]; then
        "$uv" venv --quiet --python "$base" "$venv"
    else
        "$base" -m venv "$venv"
    fi
    echo "$PWD $(base_of_venv)" > "$venv/made-here"
fi
if [ -z "$uv" ]; then
    # Apart from the environment's own packages, which `uv pip sync` makes equal to the lock.
    uv=$venv/bootstrap/bin/uv
    [ -x "$uv" ] || "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --target "$venv/bootstrap" uv \
        2>/dev/null || uv=
fi
if [ -n "$uv" ]; then
    "$uv" pip sync --quiet --python "$venv/bin/python" --require-hashes requirements.lock
    "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
else
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
fi
echo "$wanted" > "$venv/installed"
