//! Connections to Redis and what goes over them: discovery of the server, login, protocol, reconnecting.
//! It knows no key of ours and nothing of messages.
//!
//! There are three kinds of connections, all made by a [`Connector`](connector::Connector): a
//! [`Connection`](connection::Connection) belongs to one user, a [`SharedConnection`](shared::SharedConnection) to many
//! tasks, and a [`LibraryConnection`](connector::LibraryConnection) is the client library's, for commands that are rare.
//! [`Reconnecting`](reconnecting::Reconnecting) makes any of the two last ones again when it breaks.

pub mod backoff;
pub mod clock;
pub mod connection;
pub mod connector;
pub mod publisher;
pub mod reconnecting;
pub mod resp;
pub mod script;
pub mod shared;
pub mod subscription;
mod transport;
