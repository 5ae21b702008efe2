"""Data that outlives the instance."""
