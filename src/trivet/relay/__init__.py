"""The relay of one engine: a process of its own, standard library only, for the few ways that nftables can't go."""
