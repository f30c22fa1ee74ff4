"""The real servers that the tests and `make lab` talk to, on this machine and on loopback only."""
