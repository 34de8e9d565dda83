"""How `evaluate` scores a model on examples: predictions, scores with intervals, and the run that keeps them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit.config import Evaluate
from tlkit.display import say, shown
from tlkit.errors import InvalidInput
from tlkit.progress import Progress
