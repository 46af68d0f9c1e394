//! A throwaway PostgreSQL server for one test process.
