"""Remember: one folder a database. Must not know any business rule, nor who asks."""
