"""The bare `xllamacpp` object, in a process of its own.

    python -m benchmarks.bare_engine MODEL --slots 32 --context 512 rounds '[[1, 32, 0], ...]'
    python -m benchmarks.bare_engine MODEL --slots 32 --context 512 serve

`rounds` runs the load on threads in this process and prints a result for each line
`[streams, tokens, seed]` read from standard input; `serve` opens llama.cpp's own HTTP server and
prints its address.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from dataclasses import asdict

import xllamacpp

from benchmarks.load import Timing, bodies, has_text, summarise


def load_model(path: str, *, slots: int, context: int, threads: int) -> xllamacpp.Server:
    """Load a model the way that openworks does, so that only what lies around it differs."""
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.verbosity = 1
    params.n_batch = 512
    params.n_parallel = slots
    params.n_ctx = slots * context
    params.fit_params = False
    params.cache_ram_mib = 256
    params.warmup = False
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(params)


def run_round(server: xllamacpp.Server, streams: int, *, tokens: int, seed: int) -> str:
    """Run one round on threads; return its result as JSON."""
    timings: list[Timing] = []
    started_s = time.perf_counter()

    def ask(body: bytes) -> None:
        first_s, chunks = 0.0, 0

        def on_event(event: bytes) -> bool:
            nonlocal first_s, chunks
            if has_text(event):
                chunks += 1
                first_s = first_s or time.perf_counter() - started_s
            return False

        server.handle_chat_completions(body, on_event)
        timings.append(Timing(first_s, chunks, time.perf_counter() - started_s))

    workers = [
        threading.Thread(target=ask, args=(json.dumps(body).encode(),))
        for body in bodies(streams, tokens=tokens, seed=seed)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    result = summarise(timings, tokens=tokens, took_s=time.perf_counter() - started_s)
    return json.dumps(asdict(result))


def main() -> None:
    """Load the model, then answer lines on standard input until it ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("mode", choices=["rounds", "serve"])
    options = parser.parse_args()
    server = load_model(
        options.model, slots=options.slots, context=options.context, threads=options.threads
    )
    print(server.listening_address, flush=True)
    for line in sys.stdin:
        streams, tokens, seed = json.loads(line)
        print(run_round(server, streams, tokens=tokens, seed=seed), flush=True)


if __name__ == "__main__":
    main()
