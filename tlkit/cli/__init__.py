"""The command line of the recipes: a config's fields are its flags, and a user's mistake is one line."""

from tlkit.cli.helptext import FIRST, help_text
from tlkit.cli.running import FAILURE, INTERRUPTED, USAGE, call, main
from tlkit.cli.suggestions import MEANT
from tlkit.cli.values import from_settings

__all__ = ["FAILURE", "FIRST", "INTERRUPTED", "MEANT", "USAGE", "call", "from_settings", "help_text", "main"]
