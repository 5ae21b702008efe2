"""Instances: record, status, plan, life cycle, exec, logs."""
