//! What the tests of the way in share.
