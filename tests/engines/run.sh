#!/bin/sh
# The suite against a real vLLM: provisions it once, then runs every test in this folder. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/../.."
tests/engines/provision
exec .venv/bin/python -m pytest tests/engines -q -p no:cacheprovider "$@"
