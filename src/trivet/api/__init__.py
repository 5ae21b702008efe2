"""HTTP doors. They translate and never decide."""
