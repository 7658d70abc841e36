//! History in PostgreSQL.
