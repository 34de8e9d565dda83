"""What LetterNet's features are worth when labels are few, beside raw pixels and a network with random weights.

python benchmarks/letternet_probe.py
"""

from __future__ import annotations

import argparse

from tlkit.recipes import pretrain


def main() -> None:
    """Print accuracy on scikit-learn's handwritten digits; see `tlkit.recipes.pretrain.probe` for the measure."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--draws", type=int, default=20, help="random choices of the labeled digits")
    parser.add_argument("--weights", default="letters", help="a file of weights, by default the packaged ones")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    options = parser.parse_args()
    import keras

    from tlkit.backbones import build

    photos, digits = pretrain.handwritten_digits()
    keras.utils.set_random_seed(options.seed)
    features = {
        "raw pixels": photos.reshape(len(photos), -1),
        "random weights": pretrain.pooled(build("LetterNet", weights="none"), photos),
        "LetterNet": pretrain.pooled(build("LetterNet", weights=options.weights), photos),
    }
    rows = {name: pretrain.probe(found, digits, options.draws) for name, found in features.items()}
    print("\n".join(pretrain.table(rows)))


if __name__ == "__main__":
    main()
