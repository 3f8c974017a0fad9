"""`python -m training.chat`: tokenizer, training, export and scores, each step resumable."""

import argparse
import logging
from pathlib import Path

import torch
from tokenizers import Tokenizer

from training.chat.card import write_card
from training.chat.checks import check
from training.chat.evaluate import evaluate
from training.chat.export import export_model
from training.chat.mixture import sample_texts
from training.chat.model import LlamaShape
from training.chat.template import render
from training.chat.tokenizer import load_tokenizer, train_tokenizer
from training.chat.train import Run, TrainConfig
from training.folders import replacing


def main() -> None:
    """Train until the minutes are spent, then export, measure and write the card."""
    defaults = TrainConfig()
    parser = argparse.ArgumentParser(prog="python -m training.chat", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/training/chat"))
    parser.add_argument("--out", type=Path, default=Path("src/openworks/models/tiny-chat"))
    parser.add_argument("--minutes", type=float, default=defaults.minutes)
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--cases", type=int, default=200, help="test cases for each figure")
    parser.add_argument("--no-compile", action="store_true", help="train without torch.compile")
    parser.add_argument(
        "--export-only", action="store_true", help="export and measure the last checkpoint"
    )
    parser.add_argument("--note", default="", help="a remark about this run for the card")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(work / "tokenizer.json")
    if not options.export_only:
        config = TrainConfig(
            minutes=options.minutes, threads=options.threads, compile=not options.no_compile
        )
        Run(work, tokenizer, config).train()
    _export(options, tokenizer)


def _tokenizer(path: Path) -> Tokenizer:
    if not path.exists():
        texts = (render(case.messages, case.tools) for case in sample_texts(0, 30_000))
        train_tokenizer(texts).save(str(path))
    return load_tokenizer(path)


def _export(options: argparse.Namespace, tokenizer: Tokenizer) -> None:
    weights = torch.load(options.work / "checkpoint.pt", weights_only=True)["model"]
    facts = options.work / "checkpoint.json"
    with replacing(options.out) as folder:
        export_model(weights, LlamaShape(), tokenizer, folder)
        agreement = check(folder)
        scores = evaluate(folder / "model.gguf", options.cases, threads=options.threads)
        write_card(folder, scores, agreement, facts, options.note)


if __name__ == "__main__":
    main()
