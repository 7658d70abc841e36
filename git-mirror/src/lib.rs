//! git-mirror
