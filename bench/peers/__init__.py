"""Who is measured: one small class per peer, all behind the contract in peer.py."""
