"""The vm level."""
