"""The typed client of api/native, and the wire shapes both sides share."""
