"""The `trivet` command: one file per noun, and output. Sees the engine only through `client/`."""
