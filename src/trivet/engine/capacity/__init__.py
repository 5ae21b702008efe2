"""Promises, admission and the memory broker: pure functions on frozen records, and one loop that does what they say."""
