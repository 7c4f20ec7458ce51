//! The reference for operators, written from the declarations of the sections.
