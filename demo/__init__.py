"""The main job on real input: a service built from Debian's packages, run at three isolation levels."""
