"""What runs inside a VM made from an OCI image: kernel, initramfs, agent."""
