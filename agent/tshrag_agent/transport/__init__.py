"""The ways to a DUT: this host, SSH, a serial console; and to its power."""
