//! Who may come in. So far everybody may, as a guest.

pub mod guest;
