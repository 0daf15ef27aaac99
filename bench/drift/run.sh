#!/bin/sh
# False alarms and delays of drift. Usage: bench/drift/run.sh [--streams 300] (`--help` for the rest); apt gets the texts.
set -eu
cd "$(dirname "$0")/../.."
bin=.venv/bin
work=bench/drift/.work

[ -x "$bin/uv" ] || { echo "bench: there is no virtual environment yet; run make check" >&2; exit 2; }
mkdir -p "$work/texts"
if [ ! "$work/venv/.installed" -nt bench/drift/run.sh ]; then
  "$bin/uv" venv --quiet --clear --python "$bin/python" "$work/venv"
  "$bin/uv" pip install --quiet --python "$work/venv/bin/python" numpy scipy river msgspec aiohttp
  touch "$work/venv/.installed"
fi
for package in fortunes fortunes-min fortunes-de fortunes-ru fortunes-it fortunes-zh python3.11-doc manpages manpages-de \
  manpages-es manpages-fr manpages-ja perl-doc debian-faq-fr xbitmaps libstb-dev linux-doc-6.1 golang-1.19-src; do
  [ -d "$work/texts/$package" ] && continue
  mkdir -p "$work/packages"
  if (cd "$work/packages" && apt-get download "$package" >/dev/null 2>&1); then
    dpkg-deb -x "$work/packages/$package"_*.deb "$work/texts/$package"
  else
    echo "bench: $package cannot be downloaded; its texts are left out" >&2
  fi
done
PYTHONPATH=.:proxy:collectors exec "$work/venv/bin/python" -m bench.drift "$@"
