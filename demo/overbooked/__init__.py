"""The reference example of over-provisioning, scaled down: 36 of 32 promised, and nobody hurt."""
