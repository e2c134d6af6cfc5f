//! The part that a server has among the servers that replicate each other.

/// What a server is among the servers that replicate each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// It takes writes, or does not tell what it is.
    Primary,
    /// It copies another server.
    Replica {
        /// Address of the server that it copies.
        primary: String,
    },
}

impl Part {
    /// From the reply to `INFO replication`. `ROLE` tells the same, but needs a right that a host needs for nothing else.
    #[must_use]
    pub fn of(info: &str) -> Part {
        let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        if value("role") != Some("slave") {
            return Part::Primary;
        }
        let (host, port) = (value("master_host").unwrap_or("?"), value("master_port").unwrap_or("?"));
        Part::Replica { primary: format!("{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_names_its_primary() {
        let info = "# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n";
        assert_eq!(Part::of(info), Part::Replica { primary: "10.0.0.1:6379".to_owned() });
        assert_eq!(Part::of("# Replication\r\nrole:master\r\nconnected_slaves:2\r\n"), Part::Primary);
        assert_eq!(Part::of(""), Part::Primary);
    }
}
