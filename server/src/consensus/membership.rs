//! Who belongs to a cluster, and the number that tells clusters apart.

use std::collections::BTreeMap;

/// The cluster's number: a hash (XXH3-64) of its founding members' ids and
/// addresses, the same on every replica that was started with the same ones.
pub fn cluster_id(members: &BTreeMap<u64, String>) -> u64 {
    let mut text = String::new();
    for (id, address) in members {
        // Lengths keep two lists from reading the same.
        text.push_str(&format!("{id}:{}:{address}\n", address.len()));
    }
    trimtab_proto::checksum(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_id_depends_on_every_id_and_address_and_nothing_else() {
        let members = |list: &[(u64, &str)]| {
            list.iter()
                .map(|(id, address)| (*id, (*address).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let one = cluster_id(&members(&[(1, "a:1"), (2, "b:1")]));
        assert_eq!(one, cluster_id(&members(&[(2, "b:1"), (1, "a:1")])));
        assert_ne!(one, cluster_id(&members(&[(1, "a:1"), (2, "b:2")])));
        assert_ne!(one, cluster_id(&members(&[(1, "a:1"), (3, "b:1")])));
        assert_ne!(one, cluster_id(&members(&[(1, "a:1")])));
    }
}
