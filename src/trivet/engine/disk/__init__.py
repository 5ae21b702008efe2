"""Disk images as images: read, cut into chunks, kept as OCI artifacts, made into files for machines again."""
