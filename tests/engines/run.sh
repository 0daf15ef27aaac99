#!/bin/sh
# The suite against real engines: provisions them once, then runs every test in this folder. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/../.."
tests/engines/provision
tests/engines/provision-llamacpp
exec .venv/bin/python -m pytest tests/engines -q -p no:cacheprovider "$@"
