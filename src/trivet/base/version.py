"""Which version this is; pyproject.toml says the same, and asking an installation's metadata for it is slow."""

VERSION = "0.1.0"
