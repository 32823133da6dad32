//! Behaviour of whole registries over real sockets: one module per story.

mod forwarding;
mod guards;
mod liveness;
mod watching;
