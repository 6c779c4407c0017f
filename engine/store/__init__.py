"""PostgreSQL: one small class per subject over one Database."""
