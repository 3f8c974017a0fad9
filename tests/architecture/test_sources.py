from __future__ import annotations

import ast
import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "openworks"
FILES = sorted(SOURCE.rglob("*.py"))


def test_every_module_opens_with_a_sentence() -> None:
    silent = [
        str(file.relative_to(SOURCE))
        for file in FILES
        if not (ast.get_docstring(ast.parse(file.read_text())) or "").strip()
    ]
    assert not silent


def test_package_files_hold_a_sentence_and_nothing_more() -> None:
    full = [
        str(file.relative_to(SOURCE))
        for file in FILES
        if file.name == "__init__.py"
        and file.parent != SOURCE
        and len(ast.parse(file.read_text()).body) != 1
    ]
    assert not full


def test_blind_excepts_stand_at_the_stated_boundaries_alone() -> None:
    found = {
        str(file.relative_to(SOURCE))
        for file in FILES
        if re.search(r"except (Base)?Exception\b", file.read_text())
    }
    assert found <= {
        "api/answers.py",  # one stream
        "api/endpoint.py",  # one request
        "api/openai/batch_lines.py",  # one line of a batch
        "converters/__main__.py",  # one document, whose readers may raise anything
        "engines/host.py",  # one request in the engine
        "engines/batched/loop.py",  # one step
        "engines/batched/adapter_loader.py",  # one adapter's files
        "engines/batched/tokenizer.py",  # a library that raises nothing more precise
        "engines/batched/transformers_executor.py",  # the same
        "engines/client.py",  # closes a socket and raises again
        "engines/llamacpp/engine.py",  # a callback, whose error is raised outside it
        "gateway/ledger.py",  # one batch
        "gateway/attempts.py",  # lets go of what a cancelled attempt holds and raises again
        "gateway/exchange.py",  # records whatever ended the call and raises again
        "gateway/relay.py",  # notes whatever ended the stream and raises again
        "api/gateway/asgi.py",  # one request
        "api/gateway/websocket.py",  # one request of a socket
        "api/gateway/realtime.py",  # records whatever ended the connection and raises again
        "api/gateway/local.py",  # closes a stream and raises again
        "app/protocol.py",  # one request
        "gateway/meter.py",
        "gateway/pipeline.py",  # records whatever ended the call and raises again
        "app/wiring.py",  # one preload
        "services/background.py",  # one round of a background job
        "services/journal.py",  # one write of all that listeners wait for
        "services/workers.py",  # one durable job
        "core/tasks.py",
    }
