"""How bytes reach a socket."""
