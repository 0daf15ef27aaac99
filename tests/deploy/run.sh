#!/bin/sh
# The image, the compose stack, the chart, the unit and the scale-out, as far as one machine can run them (5 minutes, and 3
# more the first time). Arguments go to pytest; without a path among them it is the whole folder.
set -eu
cd "$(dirname "$0")/../.."
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || {
    echo "tests/deploy needs root (it starts a Docker daemon and runs debootstrap): run it as root, or install sudo" >&2
    exit 2
  }
  exec sudo --preserve-env "$0" "$@"
fi
tests/deploy/provision "${PYTHON:-python3}"
case "$*" in *tests/deploy*) ;; *) set -- tests/deploy "$@" ;; esac
# The first test of a file may have to build the image, on a machine that has other work.
exec .venv/bin/python -m pytest -q -p no:cacheprovider -o timeout=400 "$@"
