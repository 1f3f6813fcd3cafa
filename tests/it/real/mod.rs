//! Answers of real models and of the fixtures.
