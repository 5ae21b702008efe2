"""The only door to Linux: system calls, mounts, cgroups, netlink, nftables."""
