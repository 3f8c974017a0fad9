#!/bin/sh
# Trains both embedded models as shipped; run it again to resume. Takes two hours on two cores.
set -eu
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=PASSIVE PYTHONPATH=.
python -m training.embed "$@"
python -m training.chat "$@"
