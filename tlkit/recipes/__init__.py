"""The commands: `python -m tlkit.recipes.<verb>`; imports nothing, else `python -m` warns."""
