# Helpers of the shell scripts; sourced, not run.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=$ROOT/.venv/bin/python
# Two compile jobs need about 3 GB; more would only help on a larger machine.
JOBS=${CMAKE_BUILD_PARALLEL_LEVEL:-2}

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: error: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

