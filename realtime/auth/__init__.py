"""Who is there, and from which page: origins and users."""
