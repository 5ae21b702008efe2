"""trivet: one OCI image as a process, a container or a virtual machine."""
