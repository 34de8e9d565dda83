"""The commands; `COMMANDS` in `tlkit.__main__` lists them. The YAML files in `recipes/` are settings for them."""
