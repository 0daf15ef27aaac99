#!/bin/sh
# Install what is compared, then compare. Usage: bench/run.sh [--quick] [--only nginx,ours] (`--help` for the rest)
# `--install litellm` installs and does nothing else.
set -eu
cd "$(dirname "$0")/.."
bin=.venv/bin
work=bench/.work

[ -x "$bin/python" ] || {
  echo "bench: there is no virtual environment yet; run make bench" >&2
  exit 2
}

only=
previous=
for argument in "$@"; do
  case $previous in --only | --install) only=$argument ;; esac
  case $argument in --only=*) only=${argument#--only=} ;; esac
  previous=$argument
done
wanted() { case ",${only:-$1}," in *",$1,"*) ;; *) return 1 ;; esac; }

# install FOLDER REQUIREMENT...: the first requirement that can be installed; a finished folder is left as it is.
install() {
  venv=$work/$1
  shift
  [ -e "$venv/.installed" ] && return
  rm -rf "$venv"
  "$bin/uv" venv --quiet --python "$bin/python" "$venv"
  for requirement in "$@"; do
    if "$bin/uv" pip install --quiet --python "$venv/bin/python" "$requirement" 2>"$work/install.log"; then
      touch "$venv/.installed"
      return
    fi
  done
  echo "bench: could not install $1; see $work/install.log" >&2
}

mkdir -p "$work"

# nginx and vllm-router are release builds, so the interpreter is one, too: the distribution's, where it is new enough.
# The one of .venv may have been compiled without profile-guided optimisation (pyenv does so), and costs a fifth more.
release=/usr/bin/python3
if "$release" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  if [ ! "$work/venv/.installed" -nt requirements/dev.txt ] || [ ! "$work/venv/.installed" -nt pyproject.toml ]; then
    scripts/bootstrap "$release" "$work/venv" && touch "$work/venv/.installed"
  fi
  bin=$work/venv/bin
fi

if wanted nginx && [ -z "$(PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v nginx)" ]; then
  if [ "$(id -u)" = 0 ]; then sudo=; elif command -v sudo >/dev/null; then sudo=sudo; else sudo=none; fi
  if [ "$sudo" = none ] || ! command -v apt-get >/dev/null; then
    echo "bench: nginx is missing and cannot be installed from here; install the package nginx" >&2
  else
    $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends nginx >/dev/null ||
      echo "bench: nginx could not be installed; install the package nginx" >&2
  fi
fi
if wanted vllm-router; then install venv-router vllm-router==0.1.17; fi
# The second is for an index that lacks a dependency of the first.
if wanted litellm; then install venv-litellm 'litellm[proxy]==1.109.1' 'litellm[proxy]>=1.100,<=1.109.1'; fi

if [ "${1:-}" = --install ]; then exit; fi

"$bin/python" -m bench.compare "$@"

# Only the full run writes the results; what large prompts do to other streams belongs beside them.
if [ $# = 0 ]; then
  {
    printf '\n## Large prompts in the collector\n\n'
    printf 'Gap between two events as a client sees it, 50 streams at 50 events/s; five 200 kB prompts a second beside them,\n'
    printf 'digested in the collector or not even mirrored to it (`python -m bench.isolation`).\n\n'
    "$bin/python" -m bench.isolation
  } >>bench/RESULTS.md
fi
