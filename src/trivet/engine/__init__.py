"""One host's objects and their lives. Isolation levels are reached through `isolation/` only."""
