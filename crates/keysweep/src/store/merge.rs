//! Two who change the same instance at the same time: each changes what it meant to, and undoes nothing of the other's.

use crate::model::{Instance, hosts};

/// What an instance that is `current` by now becomes when somebody who saw it as `before` wants it to be `after`: what that
/// leaves as it was stays as it is by now.
///
/// Where the instance is and how it is reached is one thing: a password never meets another address than it was given for.
pub(super) fn merged(current: Instance, before: &Instance, after: &Instance) -> Instance {
    let is_same_way = before.url == after.url
        && before.username == after.username
        && before.password == after.password
        && before.sentinel_username == after.sentinel_username
        && before.sentinel_password == after.sentinel_password
        && before.ca_pem == after.ca_pem
        && before.cert_pem == after.cert_pem
        && before.client_key == after.client_key
        && before.server_name == after.server_name
        && before.address_map == after.address_map;
    let mut merged = match is_same_way {
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

/// What an active task burdens once its instance has another URL, as it is kept: the hosts of that; and where its sweep has
/// begun, those that it burdens so far as well, since its worker goes on there until it is through.
pub(super) fn moved(so_far: Option<&str>, has_begun: bool, instance: &Instance) -> Option<String> {
    let mut all = hosts(instance);
    if has_begun {
        all.extend(so_far.unwrap_or_default().split_whitespace().map(str::to_owned));
        all.sort();
        all.dedup();
    }
    (!all.is_empty()).then(|| all.join(" "))
}
