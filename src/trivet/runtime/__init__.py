"""The OCI runtime, `trivet-runtime`: turns a runtime-spec bundle into launcher operations."""
