"""One contract, three levels: process, container, vm."""
