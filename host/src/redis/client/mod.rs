//! Connections to Redis: discovery of the server, login, protocol, reconnecting. This room knows no keys and no
//! messages.
//!
//! There are three kinds of connections, all opened by a [`Connector`](connector::Connector). A
//! [`Connection`](connection::Connection) has one user. A [`SharedConnection`](shared::SharedConnection) serves many
//! tasks. A [`LibraryConnection`](connector::LibraryConnection) belongs to the client library, for rare commands.
//! [`Reconnecting`](reconnecting::Reconnecting) opens a connection of the last two kinds again when it fails.

pub mod backoff;
pub mod clock;
pub mod connection;
pub mod connector;
pub mod part;
pub mod publisher;
pub mod reconnecting;
pub mod resp;
pub mod script;
mod sentinel;
pub mod shared;
pub mod subscription;
mod tie;
mod transport;
