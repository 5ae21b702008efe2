"""The OCI distribution specification, client side."""
