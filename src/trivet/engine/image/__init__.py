"""Images: model, sources (registry, bootstrap, archive), unpacking, saving."""
