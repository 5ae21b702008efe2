"""BuildKit's session: what clients of `docker build` let an engine ask them for, over gRPC, and what they are told."""
