"""What a scorer says about data and policies: counts, tables, matrices."""
