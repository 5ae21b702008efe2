"""What an image becomes on disk: a contract and its snapshotters."""
