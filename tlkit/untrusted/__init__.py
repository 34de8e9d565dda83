"""What comes from outside is checked where it enters: identifiers, paths, URLs, sizes, JSON, YAML and archives."""

from tlkit.untrusted.archives import check_expansion, check_hdf5, member
from tlkit.untrusted.jsonfiles import LONGEST_JSON, parse_json, read_bytes, read_json
from tlkit.untrusted.memory import SHARE, available_memory, batch_size, check_memory
from tlkit.untrusted.names import answered, duplicates, identifier, local_path, remove
from tlkit.untrusted.patterns import pattern
from tlkit.untrusted.urls import PROTOCOLS, check_url, is_url
from tlkit.untrusted.yamlfiles import dump_yaml, parse_yaml, read_yaml, yaml_line, yaml_text

__all__ = [
    "LONGEST_JSON", "PROTOCOLS", "SHARE", "answered", "available_memory", "batch_size", "check_expansion",
    "check_hdf5", "check_memory", "check_url", "dump_yaml", "duplicates", "identifier", "is_url", "local_path",
    "member", "parse_json", "parse_yaml", "pattern", "read_bytes", "read_json", "read_yaml", "remove", "yaml_line",
    "yaml_text",
]  # fmt: skip
