"""Writers: how frames become bytes and reach the socket of a client."""
