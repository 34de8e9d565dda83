"""A search space as data: the settings of a recipe, in which any value may be a range of values.

A range is one of `{choice: [3, 5, 7]}`, `{int: [16, 256], step: 16}`, `{float: [1e-5, 1e-2], log: true}` and
`{bool: true}`, both ends included. With `when: {full.unfreeze_from: [stage3, stage4]}` it counts only where another
range has one of these values. With `repeat: [2, 4]` it is a list of two to four values, each drawn on its own; with
`repeat: builder.filters` it is as long as that list.
"""

from tlkit.config.space.parsing import parse
from tlkit.config.space.ranges import Range, Space, corners
from tlkit.config.space.settings import difference, flow, merged, named, nested

__all__ = ["Range", "Space", "corners", "difference", "flow", "merged", "named", "nested", "parse"]
