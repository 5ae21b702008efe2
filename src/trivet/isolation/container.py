"""The container level."""
