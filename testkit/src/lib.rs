//! Partners for tests: a real API server, a scripted sink, processes to kill
