"""`trivet vm`: machines with an operating system of their own."""
