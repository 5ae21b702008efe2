"""Measurements side by side: trivet at its three levels, and docker, podman, runc and crun where they are installed."""
