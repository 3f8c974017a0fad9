#!/bin/sh
# Trains the embedded models and adapters as shipped; run it again to resume. Takes three hours on
# two cores.
set -eu
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=PASSIVE PYTHONPATH=.
python -m training.embed "$@"
python -m training.chat "$@"
python -m training.adapters
