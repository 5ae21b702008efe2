"""`trivet compose`: applications of several services, from compose files (the Compose Specification)."""
