"""Sends instances' logs to others: journald, syslog, fluentd. A process of its own, which outlives the engine.

The log itself is the buffer: what is sent is read from the files that monitors write, and how far it was sent stands
beside them. What belongs here is whatever knows a receiver's protocol; who wants which receiver is the engine's.
"""
