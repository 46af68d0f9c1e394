//! Run repositories on SQLite and PostgreSQL.
