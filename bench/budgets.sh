#!/bin/sh
# Install LiteLLM, then compare whose budgets hold; writes bench/RESULTS-budgets.md. Usage: bench/budgets.sh [--only ours-cut] …
set -eu
cd "$(dirname "$0")/.."
bench/run.sh --install litellm
if [ $# = 0 ]; then set -- --out bench/RESULTS-budgets.md; fi
exec .venv/bin/python -m bench.budgets "$@"
