//! Integration tests: the parts together, as a user or an operator meets them.

mod sim;
