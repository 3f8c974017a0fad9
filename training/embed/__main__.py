"""`python -m training.embed`: tokenizer, training, export and scores, each step resumable."""

import argparse
import logging
import random
from pathlib import Path

from tokenizers import Tokenizer

from training.embed.card import write_card
from training.embed.evaluate import evaluate
from training.embed.export import export_model
from training.embed.paraphrases import draw_other_pair, draw_pair
from training.embed.tokenizer import train_tokenizer
from training.embed.train import EmbedConfig, EmbedRun, bert_config
from training.folders import replacing
from training.pools import World


def main() -> None:
    """Run what is asked; by default everything."""
    defaults = EmbedConfig()
    parser = argparse.ArgumentParser(prog="python -m training.embed", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/training/embed"))
    parser.add_argument("--out", type=Path, default=Path("src/openworks/models/tiny-embed"))
    parser.add_argument("--minutes", type=float, default=defaults.minutes)
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--pairs", type=int, default=300, help="test pairs for each task")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    tokenizer_path = work / "tokenizer.json"
    if not tokenizer_path.exists():
        world = World(random.Random(0))
        pairs = [draw_pair(world) for _ in range(20_000)]
        pairs += [draw_other_pair(world) for _ in range(10_000)]
        train_tokenizer(pair.passage for pair in pairs).save(str(tokenizer_path))
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    config = EmbedConfig(minutes=options.minutes, threads=options.threads)
    run = EmbedRun(work, tokenizer, config)
    run.train()
    with replacing(options.out) as folder:
        export_model(run.model.state_dict(), bert_config(), tokenizer, folder)
        scores = evaluate(folder / "model.gguf", options.pairs, threads=options.threads)
        write_card(folder, scores, work / "checkpoint.json", tokenizer)


if __name__ == "__main__":
    main()
