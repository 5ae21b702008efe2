"""The OCI specifications as frozen records and codecs, without I/O."""
