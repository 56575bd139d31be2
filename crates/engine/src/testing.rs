//! A scripted runner and a single-threaded harness.
