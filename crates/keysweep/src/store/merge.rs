//! Two who change the same instance at the same time: each changes what it meant to, and undoes nothing of the other's.

use crate::model::Instance;

/// What an instance that is `current` by now becomes when somebody who saw it as `before` wants it to be `after`: what that
/// leaves as it was stays as it is by now.
///
/// Where the instance is and how it is reached is one thing: a password never meets another address than it was given for.
pub(super) fn merged(current: Instance, before: &Instance, after: &Instance) -> Instance {
    let way = |instance: &Instance| {
        let Instance { url, username, password, sentinel_username, sentinel_password, .. } = instance.clone();
        let Instance { ca_pem, cert_pem, client_key, server_name, address_map, .. } = instance.clone();
        let nodes = (url, username, password, sentinel_username, sentinel_password);
        (nodes, (ca_pem, cert_pem, client_key, server_name, address_map))
    };
    let mut merged = match way(before) == way(after) {
        true => current.clone(),
        false => Instance { facts: current.facts.clone(), unreachable: current.unreachable.clone(), ..after.clone() },
    };
    fn pick<T: PartialEq + Clone>(current: &T, before: &T, after: &T) -> T {
        if before == after { current.clone() } else { after.clone() }
    }
    merged.name = pick(&current.name, &before.name, &after.name);
    merged.pace = pick(&current.pace, &before.pace, &after.pace);
    merged.window = pick(&current.window, &before.window, &after.window);
    merged.window_binds_manual =
        pick(&current.window_binds_manual, &before.window_binds_manual, &after.window_binds_manual);
    merged.manage_lazyfree = pick(&current.manage_lazyfree, &before.manage_lazyfree, &after.manage_lazyfree);
    merged.paused = pick(&current.paused, &before.paused, &after.paused);
    if merged.url != current.url {
        // What was seen was another server.
        (merged.facts, merged.unreachable) = (None, None);
    }
    merged
}
