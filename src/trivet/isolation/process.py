"""The process level."""
