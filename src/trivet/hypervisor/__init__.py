"""QEMU: command line, process, monitor protocol, drives, the host side of the guest agent."""
