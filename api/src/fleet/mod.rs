//! The streams of the agents: gRPC sessions, orders down, reports up. In the making.
