//! The broker that makes any number of nodes one hall: one Redis server.
