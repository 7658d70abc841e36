//! scheduler-shell
