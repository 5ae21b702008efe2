"""The OCI distribution specification, server side: a process of its own, `trivet registry serve`."""
