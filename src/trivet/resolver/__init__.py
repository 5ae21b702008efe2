"""The DNS server of one engine, a process of its own that goes on when the engine doesn't.

It answers inside the network namespaces of instances at 127.0.0.11, and for machines at their networks' gateways. What
it knows is one file, which the engine writes. A hundred instances share it, so it stays small: only the standard
library and the two kernel modules it needs are imported here.
"""
