"""The real scheduler over recorded or invented work, on a clock that waits for nobody."""
