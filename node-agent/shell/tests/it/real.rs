//! The agent with real containers. Needs root and the shim.
