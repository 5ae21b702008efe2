"""Networks, addresses, published ports."""
