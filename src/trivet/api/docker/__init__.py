"""The Docker Engine API: people's tools work unchanged. A file per resource; it translates and never decides."""
