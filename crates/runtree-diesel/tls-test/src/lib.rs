//! Holds only tests: the PostgreSQL backend over rustls, against servers with and without TLS.
