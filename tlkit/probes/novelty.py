"""Whether an example is like anything that was learned from: its distance from the nearest known example."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlkit import untrusted
from tlkit.errors import InvalidInput
from tlkit.probes.features import Features, finite

FALSE_ALARMS = 0.05  # share of new examples of the known classes that are taken for something else
REFERENCES = 2_000  # known examples that are kept at the most, a random sample of more
FEWEST = 40  # held-out examples from which on a threshold is chosen
MEMBER = "tlkit_references.npy"
HASHES = "tlkit_reference_hashes.npy"
LARGEST = 2**28  # bytes that the references in a file may take
BLOCK = 4096  # examples whose similarities are in memory at a time


class Novelty(NamedTuple):
    """Known examples, and how far from all of them a new one may be.

    Args:
        references: Shape (references, features), float16: features of known examples, each of length 1.
        threshold: Distance from the nearest of them beyond which an example is like none, 0 to 2.
        hashes: Shape (references, 32), uint8: SHA-256 of each one's content, by which its file is found again; None
            where they are not known.
    """

    references: np.ndarray
    threshold: float
    hashes: np.ndarray | None = None

    def distances(self, features: Features) -> np.ndarray:
        """Return 1 minus the cosine to the nearest reference: shape (examples,), from 0 to 2."""
        return distances(features, self.references)


def fit(
    features: Features,
    *,
    held_out: Features | None = None,
    groups: Sequence[Hashable] | None = None,
    hashes: Sequence[str] | None = None,
    false_alarms: float = FALSE_ALARMS,
    seed: int = 0,
) -> Novelty | None:
    """Keep known examples, and choose the threshold by examples that are not among them; None where these are too few.

    Of new examples that are drawn like the held-out ones, a share of at most `false_alarms` lies beyond the threshold
    (split conformal prediction; Bates et al. 2023, arXiv:2104.08279), on average over all choices of held-out ones. The
    nearest neighbour's cosine told what was left out better than five neighbours', than Mahalanobis' distance and its
    relative form (Ren et al. 2021, arXiv:2106.09022), and than the probability; see benchmarks/novelty.py.

    Args:
        features: Shape (examples, features), of the examples that are known.
        held_out: Shape (examples, features), of those by which the threshold is chosen. By default each known example
            is held out by itself, with its group: right where the network has not learned from them.
        groups: Of the known examples, such as a photo's hash.
        hashes: SHA-256 of each known example's content, in hexadecimal digits, to be kept too.
        false_alarms: The share, above 0 and below 1.
        seed: Decides which examples are kept, where there are more than 2,000.

    Raises:
        InvalidInput: features are not finite.

    >>> rng = np.random.default_rng(0)
    >>> known = rng.normal(size=(400, 8)) + 4
    >>> found = fit(known)
    >>> share = lambda x: float(np.mean(found.distances(x) > found.threshold))
    >>> share(rng.normal(size=(400, 8)) + 4) < 0.08, share(rng.normal(size=(400, 8))) > 0.9
    (True, True)
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(features))[:REFERENCES])
    is_chosen = np.isin(np.arange(len(features)), chosen)
    references = unit(np.concatenate([part[is_chosen[rows]] for rows, part in finite(features)])).astype(np.float16)
    if held_out is None:
        number: dict[Hashable, int] = {}
        keys = range(len(features)) if groups is None else groups
        group = np.array([number.setdefault(key, len(number)) for key in keys])
        found = distances(features, references, group, group[chosen])
    else:
        found = distances(held_out, references)
    place = int(np.ceil((len(found) + 1) * (1 - false_alarms) - 1e-9))
    if len(found) < FEWEST or place > len(found):
        return None
    kept = None if hashes is None else np.stack([_digest(hashes[index]) for index in chosen])
    return Novelty(references, float(np.sort(found)[place - 1]), kept)


def _digest(text: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), np.uint8)


def nearest(features: Features, references: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the references with the largest cosine to each example, the most alike first.

    Shapes:
        features: (examples, features)
        references: (references, features), each of length 1
        returns: (examples, count), or fewer where there are fewer references

    >>> nearest(np.array([[3.0, 0.1]]), np.float16([[0, 1], [1, 0]]), 2).tolist()
    [[1, 0]]
    """
    parts = [np.argsort(-(unit(part) @ references.astype(np.float32).T), axis=1) for _, part in finite(features)]
    return np.concatenate(parts)[:, :count]


def distances(
    features: Features,
    references: np.ndarray,
    groups: np.ndarray | None = None,
    reference_groups: np.ndarray | None = None,
) -> np.ndarray:
    """Return 1 minus the cosine to the nearest reference, not of the same group: shape (examples,), from 0 to 2.

    Shapes:
        features: (examples, features)
        references: (references, features), each of length 1
        groups: (examples,), integers
        reference_groups: (references,), integers
    """
    if features.shape[1] != references.shape[1]:
        raise InvalidInput(f"there are {features.shape[1]} features, and the references have {references.shape[1]}")
    result, across = np.empty(len(features), np.float32), references.astype(np.float32).T
    for rows, part in finite(features):
        for start in range(0, len(part), BLOCK):
            cosine = unit(part[start : start + BLOCK]) @ across
            place = slice(rows.start + start, rows.start + start + len(cosine))
            if groups is not None and reference_groups is not None:
                cosine[groups[place, None] == reference_groups] = -1
            result[place] = 1 - cosine.max(axis=1)
    return result


def unit(x: np.ndarray) -> np.ndarray:
    """Scale each row to the length 1; rows of zeros stay."""
    scaled: np.ndarray = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return scaled


def write(path: str | Path, novelty: Novelty) -> None:
    """Add references to a saved model, as members of the zip; Keras drops them when it saves the model again."""
    arrays = {MEMBER: novelty.references, HASHES: novelty.hashes}
    with zipfile.ZipFile(path, "a") as archive:
        for name, array in arrays.items():
            if array is not None:
                buffer = io.BytesIO()
                np.save(buffer, array)
                archive.writestr(name, buffer.getvalue())


def read(path: str | Path) -> np.ndarray | None:
    """Return the features of known examples that a saved model has; None where it has none.

    Shapes:
        returns: (references, features), float16

    Raises:
        ValueError: the member is not such an array.
        zipfile.BadZipFile: the file is damaged.
    """
    array = _read(path, MEMBER)
    if array is not None and (array.dtype != np.float16 or array.ndim != 2 or not np.isfinite(array).all()):
        raise ValueError(f"{MEMBER} in {path} is not an array of finite numbers of 16 bits, (references, features)")
    return array


def read_hashes(path: str | Path) -> list[str] | None:
    """Return the hash of each known example's content, in hexadecimal digits; errors as `read`."""
    array = _read(path, HASHES)
    if array is not None and (array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != 32):
        raise ValueError(f"{HASHES} in {path} is not an array of bytes, (references, 32)")
    return None if array is None else [bytes(row).hex() for row in array]


def _read(path: str | Path, name: str) -> np.ndarray | None:
    with zipfile.ZipFile(path) as archive:
        try:
            content = untrusted.member(archive, name, LARGEST)
        except KeyError:
            return None
    try:
        array = np.asarray(np.lib.format.read_array(io.BytesIO(content), allow_pickle=False))
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise ValueError(f"{name} in {path} is not an array: {error}") from error
    if not array.size:
        raise ValueError(f"{name} in {path} is empty")
    return array
