"""Preference data: formats, loading, collation, and a generator of cyclic preferences."""
