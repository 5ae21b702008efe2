"""Instances as they once were: saved with what they had in memory and on disk, gone back to, and multiplied."""
