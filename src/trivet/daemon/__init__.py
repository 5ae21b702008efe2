"""`trivetd`: signals, settings, and the wiring that knows every package."""
