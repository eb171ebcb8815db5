"""The wire protocol: names, events, cursors, frames and commands, without Django or I/O."""
