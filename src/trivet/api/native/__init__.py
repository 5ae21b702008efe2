"""trivet's own dialect, /v1, described by an OpenAPI document."""
