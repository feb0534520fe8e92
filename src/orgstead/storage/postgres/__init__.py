"""PostgreSQL: pooled tables under forced row-level security, dedicated spaces as schemas."""
