"""`python -m training.adapters`: trains, exports and measures the adapters, all or by name."""

import argparse
import logging
from pathlib import Path

import torch

from training.adapters.card import write_card
from training.adapters.evaluate import Answerer, ask, measure
from training.adapters.harbour import HARBOUR
from training.adapters.json_only import JSON_ONLY
from training.adapters.lora import add_adapter, load_base, save_adapter
from training.adapters.pirate import PIRATE
from training.adapters.recipe import Recipe
from training.adapters.train import train
from training.chat.tokenizer import load_tokenizer
from training.folders import replacing

RECIPES = {recipe.name: recipe for recipe in (PIRATE, JSON_ONLY, HARBOUR)}
_SEED = 1


def main() -> None:
    """Make what is asked for; by default every adapter."""
    parser = argparse.ArgumentParser(prog="python -m training.adapters", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(RECIPES))
    parser.add_argument("--base", type=Path, default=Path("src/openworks/models/tiny-chat"))
    parser.add_argument("--out", type=Path, default=Path("src/openworks/models/adapters"))
    parser.add_argument("--steps", type=int, help="fewer steps than the shipped adapters took")
    parser.add_argument("--cases", type=int, default=100, help="test cases for each figure")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--note", default="", help="a remark about this run for the card")
    options = parser.parse_args()
    unknown = set(options.names) - set(RECIPES)
    if unknown:
        parser.error(f"no adapter is called {', '.join(sorted(unknown))}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    for name in options.names or RECIPES:
        _make(RECIPES[name], options)


def _make(recipe: Recipe, options: argparse.Namespace) -> None:
    torch.manual_seed(_SEED)
    model = load_base(options.base)
    parameters = add_adapter(model)
    tokenizer = load_tokenizer(options.base / "tokenizer.json")
    facts = train(model, parameters, recipe, tokenizer, num_steps=options.steps or recipe.steps)
    with replacing(options.out / recipe.name) as folder:
        save_adapter(model, folder)
        answerer = Answerer(options.base, folder)
        scores = measure(answerer, recipe, options.cases)
        samples = ask(answerer, recipe.questions)
        write_card(folder, recipe, facts, scores, samples, options.note)


if __name__ == "__main__":
    main()
