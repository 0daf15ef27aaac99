#!/bin/sh
# Finding personal data, ours beside Presidio's and DataFog's patterns: recall, false positives, speed, worst cases.
# Usage: bench/privacy/run.sh [--cases ../shared/data/pii/cases.jsonl] [--out bench/RESULTS-privacy.md] (`--help`)
set -eu
cd "$(dirname "$0")/../.."
bin=.venv/bin
work=bench/privacy/.work

[ -x "$bin/uv" ] || { echo "bench: there is no virtual environment yet; run make check" >&2; exit 2; }
mkdir -p "$work"
if [ ! -e "$work/venv/.installed" ] || [ bench/privacy/requirements.txt -nt "$work/venv/.installed" ]; then
  "$bin/uv" venv --quiet --clear --python "$bin/python" "$work/venv"
  "$bin/uv" pip install --quiet --python "$work/venv/bin/python" -r bench/privacy/requirements.txt
  touch "$work/venv/.installed"
fi
PYTHONPATH=.:tests/support exec "$bin/python" -m bench.privacy --rivals "$work/venv/bin/python" "$@"
