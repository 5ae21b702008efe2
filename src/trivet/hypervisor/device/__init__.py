"""QEMU devices, one file per family."""
