"""The wire protocol and its vocabulary: pure, without Django and without I/O."""
