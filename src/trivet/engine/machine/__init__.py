"""Machines with an operating system of their own: what their disks begin as, and what only they can do."""
