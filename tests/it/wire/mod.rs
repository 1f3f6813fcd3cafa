//! The codecs against bytes: golden pairs, agreement between the encodings, and arbitrary input.

mod generated;
