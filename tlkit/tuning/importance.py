"""How much the scores of a search depend on each setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from tlkit import autolog
from tlkit.errors import InvalidInput

FEWEST = 5  # trials: with fewer, a fold would learn from three or less, and no tree can tell a setting from chance
FOLDS, TREES = 5, 50
REPETITIONS, SHUFFLES = 5, 4  # of the folds and forests; of every setting, in each of these
LEARNED = 500  # trials at most that one tree learns from: keeps a search of thousands to seconds


class Importance(NamedTuple):
    """How much the scores depend on one setting.

    Args:
        name: Name of the setting.
        mean: Share of the scores' variance, 0 to about 1; a little below 0 by chance where the setting does nothing.
        sd: Standard deviation over the repetitions, which differ in folds, forests and shuffles. Other trials would
            differ by more.
    """

    name: str
    mean: float
    sd: float


class Importances(NamedTuple):
    """How much the scores of a search depend on its settings.

    Args:
        settings: The most important first.
        explained: R² of the forests on trials that they did not learn from: 1 is all of the variance, 0 or below no
            better than the mean. The importances are those of the forests: where this is low, they say little.
    """

    settings: list[Importance]
    explained: float


def importances(columns: Mapping[str, Sequence[Any]], scores: Sequence[float], seed: int = 0) -> Importances:
    """Compute the permutation importance of each setting (Breiman 2001), on trials that the forest did not learn from.

    Each trial is predicted by the random forest of the fold that leaves it out. Shuffling a setting over all trials
    raises the mean squared error of these predictions; half of that, relative to the variance of the scores, is the
    importance. Where the forest is right and settings are independent, it is the setting's total effect (Homma and
    Saltelli 1996): the share of the variance that it causes, alone or with others, so that shares may sum to more
    than 1. Correlated settings, as in a search that has converged, each get less.

    With fewer than five trials no forest can be learned: the list is empty, and R² is 0.

    Args:
        columns: For each setting its value in each trial. Only the order of numbers counts, so that their scale makes
            no difference; None, for a setting that does not count, is below all. Other values are categories, and
            shuffled as one.
        scores: Score of each trial.
        seed: Decides the folds, the forests and the shuffles.

    Raises:
        InvalidInput: a column has another length than the scores, or a score is not finite.

    >>> rates, sizes = np.random.default_rng(0).random((2, 40))
    >>> result = importances({"batch_size": sizes, "learning_rate": rates}, rates**2)
    >>> [setting.name for setting in result.settings], result.explained > 0.9
    (['learning_rate', 'batch_size'], True)
    """
    from sklearn.inspection import permutation_importance

    target = np.asarray(scores, np.float64)
    for name, values in columns.items():
        if len(values) != len(target):
            raise InvalidInput(f"{name} has {len(values)} values and there are {len(target)} scores; each needs one")
    if not np.isfinite(target).all():
        raise InvalidInput(f"score {int(np.isfinite(target).argmin())} is not finite: leave out trials that failed")
    if len(target) < FEWEST or not columns:
        return Importances([], 0.0)
    if not np.ptp(target):
        return Importances([Importance(name, 0.0, 0.0) for name in columns], 0.0)
    target = (target - target.mean()) / target.std()  # squared errors are now shares of the variance
    coded = [_coded(values) for values in columns.values()]
    table = np.stack([codes for codes, _ in coded], axis=1)
    categories = [place for place, (_, ordered) in enumerate(coded) if not ordered]
    errors, drops = [], []
    random = np.random.default_rng(seed)
    for _ in range(REPETITIONS):
        forests = _HeldOut(categories, int(random.integers(2**31))).fit(table, target)
        errors.append(-forests.score(table, target))
        shuffled = permutation_importance(
            forests,
            table,
            target,
            scoring=_HeldOut.score,
            n_repeats=SHUFFLES,
            random_state=int(random.integers(2**31)),
            n_jobs=1,
        )
        drops.append(shuffled.importances_mean / 2)
    means, sds = np.mean(drops, axis=0), np.std(drops, axis=0, ddof=1)
    settings = [Importance(name, float(mean), float(sd)) for name, mean, sd in zip(columns, means, sds, strict=True)]
    return Importances(sorted(settings, key=lambda setting: -setting.mean), 1 - float(np.mean(errors)))


class _HeldOut:
    """A forest for each fold; each row is predicted by the forest that did not learn from it: keep the rows' order."""

    def __init__(self, categories: Sequence[int], seed: int):
        self.categories, self.seed = categories, seed

    @autolog.suspended()
    def fit(self, table: np.ndarray, target: np.ndarray) -> _HeldOut:
        from sklearn.compose import ColumnTransformer
        from sklearn.ensemble import RandomForestRegressor
        from sklearn.model_selection import KFold
        from sklearn.preprocessing import OneHotEncoder

        # Encoded after the shuffling, so that a setting's indicators stay together. The encoder sees no scores.
        encoder = ("categories", OneHotEncoder(sparse_output=False), self.categories)
        self.encoder = ColumnTransformer([encoder], remainder="passthrough").fit(table)
        x = self.encoder.transform(table)
        self.folds = []
        for fold, (learned, held) in enumerate(KFold(FOLDS, shuffle=True, random_state=self.seed).split(x)):
            forest = RandomForestRegressor(
                TREES, max_samples=min(len(learned), LEARNED), random_state=(self.seed + fold) % 2**31, n_jobs=1
            )
            self.folds.append((held, forest.fit(x[learned], target[learned])))
        return self

    def score(self, table: np.ndarray, target: np.ndarray) -> float:
        """Compute minus the mean squared error."""
        x = np.asarray(self.encoder.transform(table), np.float32)
        squares = 0.0
        for held, forest in self.folds:
            # The forest's prediction without its checks, which would take most of the time on so few rows.
            predicted = np.mean([tree.tree_.predict(x[held]) for tree in forest.estimators_], axis=0)
            squares += float(np.sum((target[held] - predicted[:, 0]) ** 2))
        return -squares / len(target)


def _coded(values: Sequence[Any]) -> tuple[np.ndarray, bool]:
    """Return the rank of each value, or the number of its category, and whether the order means something."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, Real) and not isinstance(value, bool) for value in present):
        keys: list[float] | list[str] = [-np.inf if value is None else float(value) for value in values]
        ordered = True
    else:
        keys, ordered = list(map(str, values)), False
    return np.unique(keys, return_inverse=True)[1].astype(np.float64), ordered
