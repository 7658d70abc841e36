//! node-agent-shell
