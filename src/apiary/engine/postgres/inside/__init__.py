"""What runs inside a backend of PostgreSQL, loaded there from the archives that the platform keeps in its tables."""
