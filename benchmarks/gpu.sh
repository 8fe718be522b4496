#!/usr/bin/env bash
# One call for a machine with a GPU, PyTorch >= 2.11 and transformers >= 5.17, and nothing of ours installed:
#
#   benchmarks/gpu.sh OUTPUT              # at most 8 minutes; writes OUTPUT/gpu.json and gpu.md
#   benchmarks/gpu.sh OUTPUT --small      # the same on the CPU in a minute: does it run?
#
# What the Trainer needs beyond them, accelerate and psutil, is taken from wheels in the folder $WHEELS where it is
# missing (`pip download --no-deps accelerate psutil`, less than 1 MB): nothing is fetched.
# PYTHON names the interpreter.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
added=
if ! "$python" -c 'import accelerate' 2>/dev/null; then
    added=$(mktemp -d)
    trap 'rm -rf "$added"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --target "$added" \
        --find-links "${WHEELS:-$repository/wheels}" accelerate psutil
fi
export PYTHONPATH="$repository/scripts:$repository/benchmarks${added:+:$added}${PYTHONPATH:+:$PYTHONPATH}"
export TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
timeout 480 "$python" "$repository/benchmarks/gpu.py" "$@"
