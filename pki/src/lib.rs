//! The certificates of a cluster: its authority, its servers, its nodes.
